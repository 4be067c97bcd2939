//! A file of policies: YAML documents, each a Kubernetes NetworkPolicy, a Kubernetes Namespace (whose
//! labels `namespaceSelector` looks at), or a policy of the native form. What is wrong is said with its line.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;

use super::kubernetes;
use super::native::{self, NativeRule};
use super::record::{NamespaceRecord, PolicyRecord};
use crate::base::limits::{LABEL_BYTES_MAX, LABELS_MAX, POLICY_NAME_MAX};

/// What one document says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Document {
    /// A policy.
    Policy(PolicyRecord),
    /// The labels of a namespace.
    Namespace(NamespaceRecord),
}

/// What is wrong with a file, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct FileError {
    /// Counted from one; zero where it is not known.
    pub line: u64,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl FileError {
    pub(super) fn at<T>(place: &Spanned<T>, message: impl Into<String>) -> Self {
        Self { line: place.referenced.line(), message: message.into() }
    }
}

/// All fields that any kind of document has; which of them go together is checked afterwards, since a
/// parser that tries one kind after the other forgets the line of what it did not know.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(rename = "apiVersion")]
    api_version: Option<Spanned<String>>,
    kind: Option<Spanned<String>>,
    metadata: Option<Metadata>,
    spec: Option<Spanned<kubernetes::Spec>>,
    #[serde(default)]
    status: Option<IgnoredAny>,
    policy: Option<Spanned<String>>,
    priority: Option<Spanned<u32>>,
    select: Option<Spanned<String>>,
    rules: Option<Vec<Spanned<NativeRule>>>,
}

/// What Kubernetes keeps about every object; most of it means nothing here.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Metadata {
    name: Spanned<String>,
    namespace: Option<Spanned<String>>,
    labels: Option<BTreeMap<String, String>>,
    #[serde(rename = "annotations")]
    _annotations: Option<IgnoredAny>,
    #[serde(rename = "uid")]
    _uid: Option<IgnoredAny>,
    #[serde(rename = "resourceVersion")]
    _resource_version: Option<IgnoredAny>,
    #[serde(rename = "generation")]
    _generation: Option<IgnoredAny>,
    #[serde(rename = "creationTimestamp")]
    _creation_timestamp: Option<IgnoredAny>,
    #[serde(rename = "managedFields")]
    _managed_fields: Option<IgnoredAny>,
}

/// Reads a file.
pub fn read(text: &str) -> Result<Vec<Document>, FileError> {
    let options = serde_saphyr::options! { with_snippet: false };
    let documents = serde_saphyr::from_multiple_with_options::<Spanned<Fields>>(text, options);
    documents.map_err(|error| of_yaml(&error))?.into_iter().map(document).collect()
}

fn of_yaml(error: &serde_saphyr::Error) -> FileError {
    let line = error.location().map_or(0, |location| location.line());
    let message = error.without_snippet().to_string();
    // The line stands in front already.
    let message = message.split(" at line ").next().unwrap_or_default();
    let message = message.trim_start_matches("error: ");
    FileError { line, message: message.to_owned() }
}

fn document(fields: Spanned<Fields>) -> Result<Document, FileError> {
    let place = Spanned { value: (), referenced: fields.referenced, defined: fields.defined };
    let fields = fields.value;
    if let Some(name) = &fields.policy {
        return native_policy(name, &fields).map(Document::Policy);
    }
    let native = [
        fields.select.as_ref().map(|s| s.referenced.line()),
        fields.priority.as_ref().map(|s| s.referenced.line()),
        fields.rules.iter().flatten().next().map(|s| s.referenced.line()),
    ];
    if let Some(line) = native.into_iter().flatten().next() {
        let message =
            "`select`, `priority` and `rules` belong to a document that begins with `policy: NAME`";
        return Err(FileError { line, message: message.to_owned() });
    }
    let kind = fields.kind.as_ref().ok_or_else(|| {
        FileError::at(&place, "a document begins with `kind: NetworkPolicy` or `policy: NAME`")
    })?;
    let metadata = fields.metadata.as_ref();
    let metadata = metadata.ok_or_else(|| FileError::at(kind, "`metadata.name` is missing"))?;
    check_name(&metadata.name)?;
    match kind.value.as_str() {
        "NetworkPolicy" => network_policy(kind, metadata, &fields).map(Document::Policy),
        "Namespace" => namespace(kind, metadata, &fields).map(Document::Namespace),
        other => Err(FileError::at(
            kind,
            format!("`{other}` is not known here; NetworkPolicy and Namespace are"),
        )),
    }
}

fn check_version(kind: &Spanned<String>, fields: &Fields, wanted: &str) -> Result<(), FileError> {
    match &fields.api_version {
        Some(version) if version.value == wanted => Ok(()),
        Some(version) => Err(FileError::at(
            version,
            format!("`apiVersion: {}` is not known here; {wanted} is", version.value),
        )),
        None => Err(FileError::at(kind, format!("`apiVersion: {wanted}` is missing"))),
    }
}

fn network_policy(
    kind: &Spanned<String>,
    metadata: &Metadata,
    fields: &Fields,
) -> Result<PolicyRecord, FileError> {
    check_version(kind, fields, "networking.k8s.io/v1")?;
    let spec = fields.spec.as_ref();
    let spec = spec.ok_or_else(|| FileError::at(kind, "`spec` is missing"))?;
    let namespace = match &metadata.namespace {
        Some(namespace) => {
            check_name(namespace)?;
            namespace.value.clone()
        }
        None => super::DEFAULT_NAMESPACE.to_owned(),
    };
    kubernetes::policy(namespace, metadata.name.value.clone(), &spec.value)
}

fn namespace(
    kind: &Spanned<String>,
    metadata: &Metadata,
    fields: &Fields,
) -> Result<NamespaceRecord, FileError> {
    check_version(kind, fields, "v1")?;
    if let Some(spec) = &fields.spec {
        return Err(FileError::at(spec, "a Namespace needs no `spec` here"));
    }
    let labels = metadata.labels.clone().unwrap_or_default();
    let long = |(key, value): (&String, &String)| key.len().max(value.len()) > LABEL_BYTES_MAX;
    if labels.len() > LABELS_MAX || labels.iter().any(long) {
        let message = format!("at most {LABELS_MAX} labels of {LABEL_BYTES_MAX} bytes");
        return Err(FileError::at(&metadata.name, message));
    }
    Ok(NamespaceRecord { name: metadata.name.value.clone(), labels })
}

fn native_policy(name: &Spanned<String>, fields: &Fields) -> Result<PolicyRecord, FileError> {
    check_name(name)?;
    let foreign = fields.kind.is_some()
        || fields.api_version.is_some()
        || fields.metadata.is_some()
        || fields.spec.is_some()
        || fields.status.is_some();
    if foreign {
        let message = "a document is either a Kubernetes object or begins with `policy: NAME`";
        return Err(FileError::at(name, message));
    }
    let rules = fields.rules.as_deref().unwrap_or_default();
    native::policy(name, fields.priority.as_ref(), fields.select.as_ref(), rules)
}

/// Kubernetes' rule for names of objects (RFC 1123 subdomains).
fn check_name(name: &Spanned<String>) -> Result<(), FileError> {
    let text = name.value.as_bytes();
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(b);
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let fine = text.iter().all(inner) && ends(text.first()) && ends(text.last());
    if fine && text.len() <= POLICY_NAME_MAX {
        return Ok(());
    }
    Err(FileError::at(
        name,
        format!(
            "`{}` cannot be a name: use lower-case letters, digits, `-` and `.`, at most {POLICY_NAME_MAX}",
            name.value
        ),
    ))
}
