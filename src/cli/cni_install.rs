//! `wharf cni install`: the link in the plugins' directory, and a list of plugins for runtimes to find.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::options::Global;
use super::output::{Failure, Outcome, line};
use crate::adapters::cni::SUPPORTED;
use crate::api::paths::RuntimeDir;

/// Where runtimes look for plugins: Kubernetes' place, and Debian's.
const BIN_DIRS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];
/// What the plugin takes of a runtime.
const CAPABILITIES: [&str; 7] =
    ["portMappings", "bandwidth", "ipRanges", "ips", "mac", "dns", "aliases"];

/// `wharf cni`
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Link this program into the plugins' directory and write a list of plugins
    Install(Install),
}

/// `wharf cni install`
#[derive(Args, Debug)]
pub(crate) struct Install {
    /// Directory of plugins; may be repeated
    ///
    /// Those of /opt/cni/bin and /usr/lib/cni that exist; the first is made if neither does.
    #[arg(long = "bin-dir", value_name = "DIR")]
    bin_dirs: Vec<PathBuf>,
    /// Directory of the runtime's configuration
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
    /// Name of the network
    #[arg(long, value_name = "NAME", default_value = "wharf")]
    name: String,
    /// Subnet of the network, one of each family; chosen by the daemon if none is given
    #[arg(long = "subnet", value_name = "CIDR")]
    subnets: Vec<IpNet>,
    /// Version of the protocol that the runtime speaks
    #[arg(long, value_name = "VERSION", default_value = "1.0.0", value_parser = SUPPORTED)]
    cni_version: String,
    /// Replace a file that has another content
    #[arg(long)]
    force: bool,
}

/// Runs `wharf cni`. A runtime directory other than the usual one goes into the file: runtimes start plugins
/// with an environment of their own.
pub(super) fn run(global: &Global, command: &Command) -> Outcome {
    let Command::Install(args) = command;
    let dir = global.runtime_dir();
    let given = (dir != RuntimeDir::of_this_user()).then(|| dir.path());
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(format!("cannot tell where this program is: {error}")))?;
    for dir in args.bin_dirs() {
        let link = dir.join("wharf");
        put_link(&program, &link, args.force)?;
        global.note(format_args!("wharf: {} -> {}", link.display(), program.display()));
    }
    let file = args.conf_dir.join(format!("10-{}.conflist", args.name));
    let text = format!("{:#}\n", args.conflist(given));
    put_file(&file, &text, args.force)?;
    line(&file.display().to_string())?;
    Ok(0)
}

impl Install {
    fn bin_dirs(&self) -> Vec<PathBuf> {
        if !self.bin_dirs.is_empty() {
            return self.bin_dirs.clone();
        }
        let there: Vec<PathBuf> =
            BIN_DIRS.iter().map(PathBuf::from).filter(|dir| dir.is_dir()).collect();
        if there.is_empty() { vec![PathBuf::from(BIN_DIRS[0])] } else { there }
    }

    fn conflist(&self, runtime_dir: Option<&Path>) -> Value {
        let capabilities: serde_json::Map<String, Value> =
            CAPABILITIES.iter().map(|name| ((*name).to_owned(), Value::Bool(true))).collect();
        let mut plugin = json!({ "type": "wharf", "capabilities": capabilities });
        if !self.subnets.is_empty() {
            let ranges: Vec<_> = self.subnets.iter().map(|s| json!([{ "subnet": s }])).collect();
            plugin["ipam"] = json!({ "ranges": ranges });
        }
        if let Some(dir) = runtime_dir {
            plugin["runtimeDir"] = json!(dir);
        }
        json!({ "cniVersion": self.cni_version, "name": self.name, "plugins": [plugin] })
    }
}

fn put_link(program: &Path, link: &Path, force: bool) -> Result<(), Failure> {
    let failed =
        |error: io::Error| Failure::new(format!("cannot make {}: {error}", link.display()));
    if let Some(dir) = link.parent() {
        fs::create_dir_all(dir).map_err(failed)?;
    }
    match fs::read_link(link) {
        Ok(target) if target == program => return Ok(()),
        // The program itself may lie there.
        _ if link == program => return Ok(()),
        _ if force => match fs::remove_file(link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        },
        _ => {}
    }
    symlink(program, link).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::new(format!("{} is there already, and is another one", link.display()))
                .hint("replace it with --force")
        }
        _ => failed(error),
    })
}

/// Whole or not at all: a runtime may read at any moment.
fn put_file(file: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let failed =
        |error: io::Error| Failure::new(format!("cannot write {}: {error}", file.display()));
    match fs::read_to_string(file) {
        Ok(there) if there == text => return Ok(()),
        Ok(_) if !force => {
            let what = format!("{} is there already, with another content", file.display());
            return Err(Failure::new(what).hint("replace it with --force"));
        }
        _ => {}
    }
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir).map_err(failed)?;
    }
    let new = file.with_extension("conflist.new");
    fs::write(&new, text).map_err(failed)?;
    fs::rename(&new, file).map_err(failed)
}
