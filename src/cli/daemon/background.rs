//! `wharf daemon --background`: the same program once more, on its own, logging to a file. The
//! caller stays until the daemon is ready or has failed, so that the next command just works and a
//! failure is not found out later.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};

use super::place;
use crate::api::paths::RuntimeDir;
use crate::cli::output::Failure;

/// Lines of the log shown when the daemon fails.
const TAIL_LINES: usize = 10;
/// Bytes of the log looked at for them.
const TAIL_BYTES: u64 = 16 * 1024;
/// What the daemon writes when it answers.
const READY: &str = "ready";

/// Starts this program once more with these arguments, without `--background`, and returns when it answers.
pub(crate) fn start(dir: &RuntimeDir, arguments: &[OsString]) -> Result<(), Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).arg("--new-session");
    let launch = Launch::new(dir, &mut command)?;
    let mut daemon = command.spawn()?;
    launch.wait(|| Ok(daemon.wait()?.to_string()))
}

/// A daemon on its way: from the command that starts it to its first answer.
#[derive(Debug)]
pub(crate) struct Launch {
    reader: OwnedFd,
    writer: OwnedFd,
    log: PathBuf,
    /// Where its lines in the log begin.
    from: u64,
}

impl Launch {
    /// Completes the command `wharf daemon …`: it logs to the file in `dir` and tells when it is ready.
    /// Nothing else may be started between this and [`Self::wait`].
    pub(crate) fn new(dir: &RuntimeDir, command: &mut Command) -> Result<Self, Failure> {
        place::make_runtime_dir(dir)?;
        let log_path = dir.log_file();
        let (log, from) = open_log(&log_path).map_err(|error| {
            Failure::new(format!("cannot write {}: {error}", log_path.display()))
        })?;
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        // The one descriptor that the daemon is to have.
        fcntl_setfd(&writer, FdFlags::empty())?;
        command.arg("--ready-fd").arg(writer.as_raw_fd().to_string());
        command.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self { reader, writer, log: log_path, from })
    }

    /// Returns when the daemon answers, or why it does not; `status` waits for its end.
    pub(crate) fn wait(self, status: impl FnOnce() -> io::Result<String>) -> Result<(), Failure> {
        drop(self.writer);
        if first_line(self.reader)? == READY {
            return Ok(());
        }
        let status = status()?;
        let tail = tail(&self.log, self.from).unwrap_or_default();
        Err(explain(&tail, &self.log, &status))
    }
}

fn open_log(path: &Path) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    let log = options.append(true).create(true).mode(0o640).open(path)?;
    let from = log.metadata()?.len();
    Ok((log, from))
}

/// What the daemon says; nothing if it ended without a word.
fn first_line(reader: OwnedFd) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(File::from(reader)).read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// The last lines that were written since `from`.
fn tail(path: &Path, from: u64) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(from.max(end.saturating_sub(TAIL_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.len().saturating_sub(TAIL_LINES);
    Ok(lines[last..].iter().map(ToString::to_string).collect())
}

/// The daemon's own last words if it had any, else the end of its log.
fn explain(tail: &[String], log: &Path, status: &str) -> Failure {
    let said = tail.iter().rposition(|line| line.starts_with("wharf: "));
    let Some(at) = said else {
        let text = format!("the daemon did not start ({status}); its log:\n{}", tail.join("\n"));
        return Failure::new(text).hint(format!("the whole log is in {}", log.display()));
    };
    let failure = Failure::new(tail[at].trim_start_matches("wharf: "));
    match tail[at..].iter().find_map(|line| line.strip_prefix("hint: ")) {
        Some(hint) => failure.hint(hint),
        None => failure.hint(format!("the log is in {}", log.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(ToOwned::to_owned).collect()
    }

    #[test]
    fn the_daemon_s_own_words_are_passed_on() {
        let tail = lines("INFO starting\nwharf: the port is taken\nhint: choose another");
        let failure = explain(&tail, Path::new("/log"), "exit status: 1");
        assert_eq!(failure.what, "the port is taken");
        assert_eq!(failure.hint.as_deref(), Some("choose another"));
    }

    #[test]
    fn without_words_the_log_s_end_is_shown() {
        let failure = explain(&lines("thread panicked"), Path::new("/log"), "signal: 6");
        assert!(failure.what.contains("signal: 6") && failure.what.contains("thread panicked"));
        assert!(failure.hint.unwrap().contains("/log"));
    }

    #[test]
    fn only_what_this_daemon_wrote_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.log");
        std::fs::write(&path, "old\n").unwrap();
        let (mut log, from) = open_log(&path).unwrap();
        assert_eq!(tail(&path, from).unwrap(), Vec::<String>::new());
        io::Write::write_all(&mut log, b"new\n\nnewer\n").unwrap();
        assert_eq!(tail(&path, from).unwrap(), ["new", "newer"]);
    }
}
