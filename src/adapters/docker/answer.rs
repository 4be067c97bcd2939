//! From a call's name and body to an answer.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Plugin;
use super::pools::{GLOBAL, LOCAL};
use super::problem::Problem;

/// What Docker hears.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// Of HTTP. Errors of a call are 200 and a field of the body.
    pub status: u16,
    /// JSON.
    pub body: Value,
}

/// The two interfaces, and what they call an error.
#[derive(Clone, Copy)]
enum Api {
    Network,
    Ipam,
}

impl Plugin {
    /// Answers a call. `path` is `/NetworkDriver.Join`, say.
    pub fn answer(&self, path: &str, body: &[u8]) -> Answer {
        let name = path.trim_start_matches('/');
        let (api, answered) = match name.split_once('.') {
            Some(("Plugin", "Activate")) => {
                let implements = json!({ "Implements": ["NetworkDriver", "IpamDriver"] });
                (Api::Network, Some(Ok(implements)))
            }
            Some(("NetworkDriver", method)) => (Api::Network, self.network_call(method, body)),
            Some(("IpamDriver", method)) => (Api::Ipam, self.ipam_call(method, body)),
            _ => (Api::Network, None),
        };
        let field = match api {
            Api::Network => "Err",
            Api::Ipam => "Error",
        };
        match answered {
            Some(Ok(body)) => Answer { status: 200, body },
            Some(Err(problem)) => {
                tracing::warn!("{name}: {problem}");
                Answer { status: 200, body: error(field, &problem.to_string()) }
            }
            None => Answer { status: 404, body: error(field, &format!("there is no call {name}")) },
        }
    }

    fn network_call(&self, method: &str, body: &[u8]) -> Option<Result<Value, Problem>> {
        Some(match method {
            "GetCapabilities" => Ok(json!({ "Scope": "local", "ConnectivityScope": "local" })),
            // A driver of one host is not asked for these; who asks all the same hears that it is fine.
            "AllocateNetwork" => Ok(json!({ "Options": {} })),
            "GwAllocCheck" => Ok(json!({ "SkipIPv4": false, "SkipIPv6": false })),
            "FreeNetwork" | "DiscoverNew" | "DiscoverDelete" => Ok(json!({})),
            "CreateNetwork" => done(read(body).and_then(|call| self.create_network(&call))),
            "DeleteNetwork" => done(read(body).and_then(|call| self.delete_network(&call))),
            "CreateEndpoint" => read(body).and_then(|call| self.create_endpoint(&call)),
            "EndpointOperInfo" => read(body).and_then(|call| self.endpoint_info(&call)),
            "DeleteEndpoint" => done(read(body).and_then(|call| self.delete_endpoint(&call))),
            "Join" => {
                read(body).and_then(|call| self.join(&call)).and_then(|joined| to_value(&joined))
            }
            "Leave" => done(read(body).and_then(|call| self.leave(&call))),
            "ProgramExternalConnectivity" => done(read(body).and_then(|call| self.program(&call))),
            "RevokeExternalConnectivity" => done(read(body).and_then(|call| self.revoke(&call))),
            _ => return None,
        })
    }

    fn ipam_call(&self, method: &str, body: &[u8]) -> Option<Result<Value, Problem>> {
        Some(match method {
            // What is given out is remembered here, so nothing need be asked for again at dockerd's start.
            "GetCapabilities" => {
                Ok(json!({ "RequiresMACAddress": false, "RequiresRequestReplay": false }))
            }
            "GetDefaultAddressSpaces" => Ok(json!({
                "LocalDefaultAddressSpace": LOCAL,
                "GlobalDefaultAddressSpace": GLOBAL,
            })),
            "RequestPool" => read(body)
                .and_then(|call| self.request_pool(&call))
                .and_then(|pool| to_value(&pool)),
            "ReleasePool" => done(read(body).and_then(|call| self.release_pool(&call))),
            "RequestAddress" => read(body)
                .and_then(|call| self.request_address(&call))
                .map(|address| json!({ "Address": address, "Data": {} })),
            "ReleaseAddress" => done(read(body).and_then(|call| self.release_address(&call))),
            _ => return None,
        })
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    Ok(serde_json::from_slice(body)?)
}

fn to_value(answer: &impl serde::Serialize) -> Result<Value, Problem> {
    Ok(serde_json::to_value(answer)?)
}

/// An answer without a body is one that Docker cannot read.
fn done(result: Result<(), Problem>) -> Result<Value, Problem> {
    result.map(|()| json!({}))
}

fn error(field: &str, text: &str) -> Value {
    json!(BTreeMap::from([(field, text)]))
}
