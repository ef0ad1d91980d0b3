//! Stages of registered code.

use super::{Options, Stage, submit};
use crate::remote_stage::StageSettings;
use crate::stage_handle::StageHandle;
use crate::{PartitionId, Runtime, codec};
use bytes::Bytes;
use phalanx_actors::{NamedBody, Payload, TaskBody};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// A stage whose code is registered by name, with one task per input, which run in any process of
/// the program.
#[derive(Clone, Debug)]
pub struct Named<I> {
    code: String,
    inputs: Vec<I>,
}

impl<I: Serialize + 'static> Stage<Named<I>> {
    /// A barrier stage of registered code with one task per input: see
    /// [`Registry`](crate::Registry). The stage has the code's name unless it is given another.
    pub fn named(code: impl Into<String>, inputs: impl IntoIterator<Item = I>) -> Self {
        let code = code.into();
        let options = Options { name: code.clone(), ..Options::default() };
        Stage { partitions: Named { code, inputs: inputs.into_iter().collect() }, options }
    }

    /// Hands the stage in. Its tasks run wherever the runtime has executors. `T` is what the code
    /// returns. Inputs and values travel as bytes, at most `link.max_payload` each.
    pub fn run<T: DeserializeOwned + 'static>(self, runtime: &Runtime) -> StageHandle<T> {
        let Named { code, inputs } = self.partitions;
        let limit = runtime.config().link_max_payload;
        let (count, registry) = (inputs.len(), runtime.registry().cloned());
        let max_message_size = runtime.config().sync_max_message_size;
        submit(runtime, count, self.options, read_bytes::<T>, |shared| {
            let registry = registry
                .ok_or("the runtime has no registry: start it with builder().registry()")?;
            registry.typed::<I, T>(&code)?;
            let inputs = inputs_to_bytes(&inputs, limit)?;
            let settings = codec::encode(&StageSettings { max_message_size });
            let settings = settings.map_err(|error| error.to_string())?;
            let (serving, here) = (shared.clone(), inputs.clone());
            let input = move |partition: PartitionId| here[partition.0 as usize].clone();
            let here = registry.code(&code, shared, input)?;
            Ok(TaskBody::Named(Arc::new(NamedBody {
                code,
                settings,
                inputs,
                serve: Arc::new(move |attempt, partition, asked| {
                    serving.side.serve(attempt, partition, asked)
                }),
                here,
            })))
        })
    }
}

fn inputs_to_bytes<I: Serialize>(inputs: &[I], limit: usize) -> Result<Vec<Bytes>, String> {
    let to_bytes = |(partition, input)| {
        let bytes = codec::encode(input).map_err(|error| {
            format!("the input of partition {partition} cannot be turned into bytes: {error}")
        })?;
        match bytes.len() {
            size if size > limit => Err(format!(
                "the input of partition {partition} has {size} bytes, allowed are {limit} \
                 (link.max_payload): have the task read what is large, or raise the limit"
            )),
            _ => Ok(bytes),
        }
    };
    inputs.iter().enumerate().map(to_bytes).collect()
}

fn read_bytes<T: DeserializeOwned>(payload: Payload) -> Result<T, String> {
    let bytes = payload.downcast::<Bytes>().map_err(|_| "it is no bytes".to_owned())?;
    codec::decode(&bytes).map_err(|error| error.to_string())
}
