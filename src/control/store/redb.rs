//! The store on one node: an embedded database in one file, `state.redb`.
//!
//! redb locks the file, so a second daemon is refused; it writes copy-on-write with checksums, so a
//! daemon killed in the middle of a write leaves the state before it.

use std::fmt;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ::redb::{
    Builder, CommitError, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition, TableError, TransactionError, WriteTransaction,
};

use super::record::{Change, Kind, Snapshot};
use super::{SCHEMA, Store, StoreError};

const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
/// How the name of a store ends while it is being made.
const DRAFT: &str = "draft-";
/// Pages redb keeps in memory. Its default is a gigabyte; our state is kilobytes.
const CACHE_BYTES: usize = 1024 * 1024;

/// A store in a file.
pub struct RedbStore {
    path: PathBuf,
    /// Closed after a failed write: redb refuses further work on a file that failed it once.
    database: Option<Database>,
}

impl RedbStore {
    /// Opens the state in a directory, making both if need be.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir);
        made.map_err(|e| StoreError::from_io(state_dir, e))?;
        let path = state_dir.join("state.redb");
        let database = open_database(&path)?;
        Ok(Self { path, database: Some(database) })
    }

    fn try_write(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open_database(&self.path)?,
        };
        let transaction = database.begin_write().map_err(|e| self.failed(e))?;
        apply(&transaction, changes).map_err(|e| self.failed(e))?;
        transaction.commit().map_err(|e| self.failed(e))?;
        self.database = Some(database);
        Ok(())
    }

    fn failed(&self, error: impl Into<Failure>) -> StoreError {
        error.into().at(&self.path)
    }
}

impl Store for RedbStore {
    fn load(&self) -> Result<Snapshot, StoreError> {
        let mut snapshot = Snapshot::default();
        let Some(database) = &self.database else { return Ok(snapshot) };
        let transaction = database.begin_read().map_err(|e| self.failed(e))?;
        for kind in Kind::ALL {
            let table = match transaction.open_table(table(kind)) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => continue,
                Err(e) => return Err(self.failed(e)),
            };
            for entry in table.iter().map_err(|e| self.failed(e))? {
                let (key, json) = entry.map_err(|e| self.failed(e))?;
                let added = snapshot.add(kind, key.value(), json.value());
                added.map_err(|cause| StoreError::Corrupt { path: self.path.clone(), cause })?;
            }
        }
        Ok(snapshot)
    }

    fn write(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        if changes.is_empty() { Ok(()) } else { self.try_write(changes) }
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").field("path", &self.path).finish_non_exhaustive()
    }
}

fn table(kind: Kind) -> TableDefinition<'static, &'static str, &'static str> {
    TableDefinition::new(kind.table())
}

fn apply(transaction: &WriteTransaction, changes: &[Change]) -> Result<(), Failure> {
    for kind in Kind::ALL {
        let of_kind = || changes.iter().filter(|c| c.kind == kind);
        if of_kind().next().is_none() {
            continue;
        }
        let mut table = transaction.open_table(table(kind))?;
        for change in of_kind() {
            match &change.json {
                Some(json) => table.insert(change.key.as_str(), json.as_str())?,
                None => table.remove(change.key.as_str())?,
            };
        }
    }
    Ok(())
}

/// Opens the file and sees to its schema.
fn open_database(path: &Path) -> Result<Database, StoreError> {
    if !path.exists() {
        create_database(path)?;
    }
    let database = open_file(path)?;
    check_schema(&database, path)?;
    remove_drafts(path);
    Ok(database)
}

/// Makes a new store beside its place and puts it there whole: a daemon killed while it writes the
/// first page would leave a file that nobody can open. The link fails if another daemon was faster;
/// then that one's file is there, and its lock will say so.
fn create_database(path: &Path) -> Result<(), StoreError> {
    let draft = path.with_extension(format!("{DRAFT}{}", std::process::id()));
    let database = open_file(&draft)?;
    write_schema(&database).map_err(|e| e.at(&draft))?;
    drop(database);
    let linked = fs::hard_link(&draft, path);
    let _ = fs::remove_file(&draft);
    match linked {
        Err(error) if !path.exists() => Err(StoreError::from_io(path, error)),
        _ => Ok(()),
    }
}

/// Removes what daemons left behind that were killed at their first start.
fn remove_drafts(path: &Path) {
    let Some(dir) = path.parent().and_then(|dir| fs::read_dir(dir).ok()) else { return };
    for file in dir.flatten().map(|entry| entry.path()) {
        let extension = file.extension().and_then(|e| e.to_str());
        if extension.is_some_and(|e| e.starts_with(DRAFT)) {
            let _ = fs::remove_file(file);
        }
    }
}

fn open_file(path: &Path) -> Result<Database, StoreError> {
    // A file that is no database at all makes redb's own checks panic in some builds; whatever it
    // finds wrong, the message is the same.
    let opened =
        std::panic::catch_unwind(|| Builder::new().set_cache_size(CACHE_BYTES).create(path));
    let corrupt = |_| StoreError::Corrupt {
        path: path.to_owned(),
        cause: "its pages contradict one another".to_owned(),
    };
    opened.map_err(corrupt)?.map_err(|e| Failure::from(e).at(path))
}

fn check_schema(database: &Database, path: &Path) -> Result<(), StoreError> {
    match read_schema(database).map_err(|e| e.at(path))? {
        None => write_schema(database).map_err(|e| e.at(path)),
        Some(text) => match text.parse::<u32>() {
            Ok(SCHEMA) => Ok(()),
            Ok(found) if found > SCHEMA => Err(StoreError::Newer { path: path.to_owned(), found }),
            _ => {
                let cause = format!("its schema is `{text}`");
                Err(StoreError::Corrupt { path: path.to_owned(), cause })
            }
        },
    }
}

fn read_schema(database: &Database) -> Result<Option<String>, Failure> {
    let transaction = database.begin_read()?;
    match transaction.open_table(META) {
        Ok(meta) => Ok(meta.get("schema")?.map(|v| v.value().to_owned())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn write_schema(database: &Database) -> Result<(), Failure> {
    let transaction = database.begin_write()?;
    let mut meta = transaction.open_table(META)?;
    meta.insert("schema", SCHEMA.to_string().as_str())?;
    meta.insert("written-by", env!("CARGO_PKG_VERSION"))?;
    drop(meta);
    Ok(transaction.commit()?)
}

/// redb's errors as three cases.
#[derive(Debug)]
enum Failure {
    InUse,
    Io(std::io::Error),
    Corrupt(String),
}

impl Failure {
    fn at(self, path: &Path) -> StoreError {
        match self {
            Self::InUse => StoreError::InUse(path.to_owned()),
            Self::Io(e) => StoreError::from_io(path, e),
            Self::Corrupt(cause) => StoreError::Corrupt { path: path.to_owned(), cause },
        }
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io(e) => Self::Io(e),
            StorageError::PreviousIo => Self::Io(std::io::Error::other("an earlier write failed")),
            other => Self::Corrupt(other.to_string()),
        }
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Self::InUse,
            DatabaseError::Storage(e) => e.into(),
            other => Self::Corrupt(other.to_string()),
        }
    }
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(e) => e.into(),
            other => Self::Corrupt(other.to_string()),
        }
    }
}

impl From<TransactionError> for Failure {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(e) => e.into(),
            other => Self::Corrupt(other.to_string()),
        }
    }
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Storage(e) => e.into(),
            other => Self::Corrupt(other.to_string()),
        }
    }
}

#[cfg(test)]
#[path = "redb_tests.rs"]
mod tests;
