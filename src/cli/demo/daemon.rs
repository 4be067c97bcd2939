//! The demo's daemon: the same program as a process of its own, as a user would start it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::api::client::Client;
use crate::api::paths::RuntimeDir;
use crate::api::types::StopRequest;
use crate::cli::daemon::Launch;
use crate::cli::output::Failure;
use crate::io::process::{self, Child, Isolation, Network};

/// An orderly end takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// A daemon that ends with its value.
#[derive(Debug)]
pub(super) struct Daemon {
    /// Where its sockets are.
    pub(super) dir: RuntimeDir,
    /// A client of it.
    pub(super) client: Client,
    child: Child,
}

/// Where its sockets are, below the demo's directory.
pub(super) fn runtime_dir(demo: &Path) -> RuntimeDir {
    RuntimeDir::new(demo.join("run"))
}

impl Daemon {
    /// Starts it in the caller's namespaces, and returns when it answers.
    pub(super) fn start(demo: &Path) -> Result<Self, Failure> {
        let dir = runtime_dir(demo);
        // The user's own configuration has no say here.
        let config = demo.join("wharf.toml");
        std::fs::write(&config, "")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--runtime-dir").arg(dir.path()).arg("daemon");
        command.arg("--config").arg(config).arg("--state-dir").arg(demo.join("state"));
        // The way out will be a LAN, which there is not yet.
        command.args(["--uplink", "none"]);
        // A service manager that waits for somebody's readiness does not wait for this one's.
        command.env_remove("NOTIFY_SOCKET").env_remove("WHARF_RUNTIME_DIR");
        let launch = Launch::new(&dir, &mut command)?;
        // In a session of its own the terminal's keys do not reach it: it ends last.
        let isolation =
            Isolation { network: Network::Host, die_with_parent: true, new_session: true };
        let child = process::spawn(&mut command, isolation, || Ok(Vec::new()))?;
        let client = Client::new(&dir);
        let daemon = Self { dir, client, child };
        launch.wait(|| Ok(format!("exit code {}", daemon.child.process().wait()?)))?;
        Ok(daemon)
    }

    /// Its process.
    pub(super) fn process(&self) -> &process::Process {
        self.child.process()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let process = self.child.process();
        let asked = self.client.stop(&StopRequest { release: true }).is_ok();
        if !asked || !process.ended_within(PATIENCE).unwrap_or(false) {
            let _ = process.signal(Signal::KILL);
        }
        let _ = process.wait();
    }
}
