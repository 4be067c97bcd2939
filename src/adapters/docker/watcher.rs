//! Names and labels. Docker tells its drivers neither, so they are read from its API: which containers
//! there are, and then its events. A thread of its own that only ever asks (`GET`), and whose failure
//! costs nothing but names: no call waits for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use hyper::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Plugin;
use crate::api::http::{call, lines};
use crate::base::limits::{LABEL_BYTES_MAX, LABELS_MAX, NAME_MAX};
use crate::control::model::EndpointUpdate;

/// How long it waits for a Docker that is not there, or not any more.
const PAUSE: Duration = Duration::from_secs(2);
/// `{"type":["container","network"],"event":["connect","rename"]}`
const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%2C%22network%22%5D%2C\
    %22event%22%3A%5B%22connect%22%2C%22rename%22%5D%7D";

/// Watches the Docker at that socket from now on.
pub(super) fn start(plugin: Arc<Plugin>, socket: PathBuf) -> std::io::Result<()> {
    let watch = move || {
        loop {
            if let Err(error) = watch(&plugin, &socket) {
                tracing::debug!("Docker's names are not known now: {error}");
            }
            sleep(PAUSE);
        }
    };
    std::thread::Builder::new().name("docker-names".to_owned()).spawn(watch).map(drop)
}

/// Why Docker was not understood, for the log.
type Unheard = Box<dyn std::error::Error>;

fn watch(plugin: &Plugin, socket: &Path) -> Result<(), Unheard> {
    // Listening first, so that nothing falls between the two.
    let (status, events) = lines(socket, EVENTS)?;
    if !status.is_success() {
        return Err(format!("its events are answered with {status}").into());
    }
    for listed in get::<Vec<Listed>>(socket, "/containers/json")? {
        tell(plugin, socket, &listed.id);
    }
    for event in events {
        let event: Event = serde_json::from_str(&event?)?;
        tell(plugin, socket, event.container());
    }
    Ok(())
}

/// Tells Wharf what a container is called. One that is gone already is nobody's concern.
fn tell(plugin: &Plugin, socket: &Path, id: &str) {
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return;
    }
    match get::<Container>(socket, &format!("/containers/{id}/json")) {
        Ok(container) => plugin.named(&container),
        Err(error) => tracing::debug!("the container {id} cannot be looked at: {error}"),
    }
}

fn get<T: DeserializeOwned>(socket: &Path, target: &str) -> Result<T, Unheard> {
    let reply = call(socket, Method::GET, target, None)?;
    if !reply.status.is_success() {
        return Err(format!("{target} is answered with {}", reply.status).into());
    }
    Ok(serde_json::from_slice(&reply.body)?)
}

impl Plugin {
    fn named(&self, container: &Container) {
        for attachment in container.network_settings.networks.values() {
            let state = self.state();
            let endpoint = state.endpoints.get(&attachment.endpoint);
            let joined = endpoint.and_then(|e| e.joined.as_ref()).map(|j| j.endpoint.clone());
            drop(state);
            let Some(endpoint) = joined else { continue };
            let mut update = container.update(attachment);
            let mut told = self.switch.update_endpoint(&endpoint, &update);
            if told.is_err() && update.name.take().is_some() {
                // The name is another's in Wharf, who came by another way.
                told = self.switch.update_endpoint(&endpoint, &update);
            }
            if let Err(error) = told {
                tracing::info!("{endpoint} keeps its name: {error}");
            }
        }
    }
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "Id")]
    id: String,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(rename = "Actor")]
    actor: Actor,
}

#[derive(Deserialize)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Attributes", default)]
    attributes: BTreeMap<String, Value>,
}

impl Event {
    fn container(&self) -> &str {
        match self.kind.as_str() {
            "container" => &self.actor.id,
            _ => self.actor.attributes.get("container").and_then(Value::as_str).unwrap_or(""),
        }
    }
}

/// `GET /containers/ID/json`, as far as it concerns us.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    name: String,
    config: ContainerConfig,
    network_settings: NetworkSettings,
}

#[derive(Deserialize)]
struct ContainerConfig {
    #[serde(rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct NetworkSettings {
    #[serde(rename = "Networks")]
    networks: BTreeMap<String, Attachment>,
}

#[derive(Deserialize)]
struct Attachment {
    #[serde(rename = "EndpointID")]
    endpoint: String,
    #[serde(rename = "Aliases")]
    aliases: Option<Vec<String>>,
}

impl Container {
    /// As much as Wharf's bounds allow.
    fn update(&self, attachment: &Attachment) -> EndpointUpdate {
        let name = self.name.trim_start_matches('/');
        let labels = self.config.labels.iter().flatten();
        let labels =
            labels.filter(|(k, v)| !k.is_empty() && k.len().max(v.len()) <= LABEL_BYTES_MAX);
        let labels = labels.take(LABELS_MAX).map(|(k, v)| (k.clone(), v.clone()));
        let aliases = attachment.aliases.iter().flatten();
        let aliases = aliases.filter(|alias| *alias != name && is_name(alias)).take(LABELS_MAX);
        EndpointUpdate {
            name: is_name(name).then(|| name.to_owned()),
            labels: Some(labels.collect()),
            aliases: Some(aliases.cloned().collect()),
        }
    }
}

fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    text.len() <= NAME_MAX
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_tells_which_container_it_is_about() {
        let text = r#"{"Type":"network","Action":"connect","Actor":{"ID":"net",
            "Attributes":{"container":"abc","name":"blue","type":"wharf"}},"scope":"local","time":1}"#;
        assert_eq!(serde_json::from_str::<Event>(text).unwrap().container(), "abc");
        let text = r#"{"Type":"container","Action":"rename","Actor":{"ID":"abc","Attributes":{}}}"#;
        assert_eq!(serde_json::from_str::<Event>(text).unwrap().container(), "abc");
        let text = r#"{"Type":"network","Action":"connect","Actor":{"ID":"net","Attributes":{}}}"#;
        assert_eq!(serde_json::from_str::<Event>(text).unwrap().container(), "");
    }

    #[test]
    fn what_wharf_would_refuse_is_left_out_of_what_it_is_told() {
        let long = "x".repeat(LABEL_BYTES_MAX + 1);
        let text = serde_json::json!({
            "Name": "/web", "Config": {"Labels": {"tier": "front", "": "x", "long": long}},
            "NetworkSettings": {"Networks": {"blue":
                {"EndpointID": "e", "Aliases": ["www", "web", "1a2b3c4d5e6f", "a b", ""]}}},
        });
        let container: Container = serde_json::from_value(text).unwrap();
        let update = container.update(&container.network_settings.networks["blue"]);
        assert_eq!(update.name.as_deref(), Some("web"));
        assert_eq!(update.labels, Some([("tier".to_owned(), "front".to_owned())].into()));
        assert_eq!(update.aliases.unwrap(), ["www", "1a2b3c4d5e6f"]);
        let text = serde_json::json!({"Name": format!("/{}", "n".repeat(64)),
            "Config": {"Labels": null}, "NetworkSettings": {"Networks":
                {"blue": {"EndpointID": "e", "Aliases": null}}}});
        let container: Container = serde_json::from_value(text).unwrap();
        let update = container.update(&container.network_settings.networks["blue"]);
        assert_eq!((update.name, update.aliases), (None, Some(Vec::new())));
    }
}
