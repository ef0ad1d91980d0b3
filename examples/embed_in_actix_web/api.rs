//! The service's requests and answers.

use crate::jobs::{Job, Jobs, View};
use crate::training::Plan;
use actix_web::error::{JsonPayloadError, QueryPayloadError};
use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use serde::Deserialize;
use serde_json::json;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

const NAME_LENGTH: RangeInclusive<u64> = 1..=100;
const TASKS: RangeInclusive<u64> = 1..=1024;
const EPOCHS: RangeInclusive<u64> = 1..=1_000_000;
const EPOCH_MS: RangeInclusive<u64> = 0..=60_000;

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .app_data(web::JsonConfig::default().error_handler(|error, _| ApiError::Body(error).into()))
        .app_data(
            web::QueryConfig::default().error_handler(|error, _| ApiError::Query(error).into()),
        )
        .service(web::resource("/jobs").get(list).post(create))
        .service(web::resource("/jobs/{id}").get(show).delete(cancel))
        .default_service(web::to(nothing_here));
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewJob {
    name: String,
    tasks: u64,
    #[serde(default = "default_epochs")]
    epochs: u64,
    #[serde(default = "default_epoch_ms")]
    epoch_ms: u64,
    #[serde(default)]
    stuck: bool,
}

fn default_epochs() -> u64 {
    100
}

fn default_epoch_ms() -> u64 {
    10
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CancelQuery {
    reason: Option<String>,
}

#[derive(Debug, Error)]
enum ApiError {
    #[error("{what} is {value}, allowed is {} to {}", allowed.start(), allowed.end())]
    OutOfRange { what: &'static str, value: u64, allowed: RangeInclusive<u64> },
    #[error("{}", text_of(.0))]
    Body(JsonPayloadError),
    #[error("{0}")]
    Query(QueryPayloadError),
    #[error("there is no job {0}")]
    NoSuchJob(String),
    #[error("job {id} is over already: it is {state}")]
    Over { id: u64, state: &'static str },
    #[error("there is nothing at {0}, only at /jobs and /jobs/{{id}}")]
    NoSuchPath(String),
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self {
            ApiError::OutOfRange { .. } => StatusCode::BAD_REQUEST,
            ApiError::Body(error) => error.status_code(),
            ApiError::Query(error) => error.status_code(),
            ApiError::NoSuchJob(_) | ApiError::NoSuchPath(_) => StatusCode::NOT_FOUND,
            ApiError::Over { .. } => StatusCode::CONFLICT,
        }
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status_code()).json(json!({ "error": self.to_string() }))
    }
}

fn text_of(error: &JsonPayloadError) -> String {
    match error {
        JsonPayloadError::ContentType => {
            "allowed is content-type: application/json only".to_owned()
        }
        error => error.to_string(),
    }
}

impl NewJob {
    fn plan(self) -> Result<Plan, ApiError> {
        let NewJob { name, tasks, epochs, epoch_ms, stuck } = self;
        within("the length of name", name.chars().count() as u64, NAME_LENGTH)?;
        Ok(Plan {
            name,
            tasks: within("tasks", tasks, TASKS)? as usize,
            epochs: within("epochs", epochs, EPOCHS)?,
            epoch: Duration::from_millis(within("epoch_ms", epoch_ms, EPOCH_MS)?),
            stuck,
        })
    }
}

fn within(what: &'static str, value: u64, allowed: RangeInclusive<u64>) -> Result<u64, ApiError> {
    if allowed.contains(&value) {
        return Ok(value);
    }
    Err(ApiError::OutOfRange { what, value, allowed })
}

async fn create(jobs: web::Data<Jobs>, job: web::Json<NewJob>) -> Result<HttpResponse, ApiError> {
    let id = jobs.start(job.into_inner().plan()?);
    let location = (header::LOCATION, format!("/jobs/{id}"));
    Ok(HttpResponse::Created().insert_header(location).json(json!({ "id": id })))
}

async fn list(jobs: web::Data<Jobs>) -> web::Json<Vec<View>> {
    web::Json(jobs.views().await)
}

async fn show(jobs: web::Data<Jobs>, id: web::Path<String>) -> Result<web::Json<View>, ApiError> {
    Ok(web::Json(find(&jobs, &id)?.view().await))
}

async fn cancel(
    jobs: web::Data<Jobs>,
    id: web::Path<String>,
    query: web::Query<CancelQuery>,
) -> Result<HttpResponse, ApiError> {
    let job = find(&jobs, &id)?;
    let view = job.view().await;
    if view.is_over() {
        return Err(ApiError::Over { id: view.id, state: view.state });
    }
    job.cancel(query.reason.as_deref().unwrap_or("DELETE was requested"));
    Ok(HttpResponse::Accepted().json(json!({ "id": view.id })))
}

fn find(jobs: &Jobs, id: &str) -> Result<Arc<Job>, ApiError> {
    let job = id.parse().ok().and_then(|id| jobs.get(id));
    job.ok_or_else(|| ApiError::NoSuchJob(id.to_owned()))
}

async fn nothing_here(request: HttpRequest) -> HttpResponse {
    ApiError::NoSuchPath(request.path().to_owned()).error_response()
}
