//! What an endpoint is called, changed while it works: engines tell names and labels after the fact.

use super::error::ControlError;
use super::model::{EndpointInfo, EndpointUpdate};
use super::networks::in_words;
use super::store::record::{EndpointRecord, Record};
use super::{Control, compile, names};

impl Control {
    /// Changes name, labels and aliases of a container, on all its networks or on one.
    pub fn update_endpoint(
        &mut self,
        name: &str,
        network: Option<&str>,
        update: &EndpointUpdate,
    ) -> Result<Vec<EndpointInfo>, ControlError> {
        let old: Vec<EndpointRecord> =
            self.find(name, network)?.into_iter().map(|e| e.record.clone()).collect();
        let new: Vec<EndpointRecord> = old.iter().map(|record| changed(record, update)).collect();
        for record in &new {
            names::check("an endpoint", &record.name)?;
            names::check_labels(&record.labels, &record.aliases)?;
            self.check_name_is_free(record, &new)?;
        }
        let changes: Vec<_> = new.iter().map(Record::put).collect();
        self.write(&changes)?;
        for (old, new) in old.iter().zip(&new) {
            self.rename(old, new);
        }
        Ok(new.iter().filter_map(|record| self.endpoint_info(&record.id)).collect())
    }

    /// A name is one container's, which may be on several networks but once on each.
    fn check_name_is_free(
        &self,
        record: &EndpointRecord,
        changing: &[EndpointRecord],
    ) -> Result<(), ControlError> {
        let others = self.state.named(&record.name).into_iter().map(|e| &e.record);
        let mut others = others.filter(|other| changing.iter().all(|new| new.id != other.id));
        let foreign = others.find(|other| {
            let same = (other.netns.is_some() && other.netns == record.netns)
                || (other.container_id.is_some() && other.container_id == record.container_id);
            !same || other.network == record.network
        });
        let Some(other) = foreign else { return Ok(()) };
        let network = self.state.network_name(other.network);
        let addrs = in_words(other.addrs.iter().map(ToString::to_string));
        Err(ControlError::Exists {
            kind: "endpoint",
            name: record.name.clone(),
            holder: format!(", on network {network} with {addrs}"),
        })
    }

    fn rename(&mut self, old: &EndpointRecord, new: &EndpointRecord) {
        self.send_name(old, false);
        self.state.rename_endpoint(new.clone());
        let network = self.state.networks.get(&new.network);
        let endpoint = self.state.endpoints.get(&new.id);
        let delta = network.zip(endpoint).map(|(n, e)| compile::endpoint(&n.record, e));
        let subject = self.subject_delta(new);
        self.send_deltas(subject.into_iter().chain(delta).collect());
        self.send_name(new, true);
        self.endpoint_changed(new);
        // Which subnets are a container's own follows from its name.
        self.retarget(&old.name);
        self.retarget(&new.name);
    }
}

fn changed(record: &EndpointRecord, update: &EndpointUpdate) -> EndpointRecord {
    let mut record = record.clone();
    if let Some(name) = &update.name {
        record.name.clone_from(name);
    }
    if let Some(labels) = &update.labels {
        record.labels.clone_from(labels);
    }
    if let Some(aliases) = &update.aliases {
        record.aliases.clone_from(aliases);
    }
    record
}
