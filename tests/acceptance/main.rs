//! The scenarios of barrier execution, each a test named after its row; README.md here lists them.

mod at_submit;
mod attempts;
mod gang_launch;
mod large_and_hostile;
mod measured;
mod observe;
mod observe_jobs;
mod retries;
mod sync_calls;
mod sync_protocol;
mod table;
mod which_stages;
mod whole_runs;
