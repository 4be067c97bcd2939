//! A small host for one test.
//!
//! As root, it is a network, mount and process namespace with loopback and one interface with a default
//! route that leads nowhere, and a temporary user in it: RootlessKit and Podman do not want to be root's.
//! Whatever the test starts ends with it, and nothing touches the machine's own interfaces. An ordinary
//! user runs the same scripts on the machine's loopback, if the machine lets one: [`lacking`] says what it
//! must have.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// No script takes so many seconds unless it hangs, even on a busy machine.
const TIMEOUT: &str = "120";

/// Prepares the namespaces as root: `$0` is the user, `$1` a directory, the rest the command. Where
/// /dev/net/tun is only root's, the user is given one as Debian's udev would.
const SETUP: &str = r#"
user=$0 tun=$1; shift
ip link set lo up
ip link add ext0 type veth peer name ext1 && ip link set ext0 up && ip link set ext1 up
ip addr add 192.0.2.7/24 dev ext0 && ip -6 addr add 2001:db8::7/64 dev ext0 nodad
ip route add default via 192.0.2.1 dev ext0 && ip -6 route add default via 2001:db8::1 dev ext0
mount -t tmpfs -o mode=755 wharf-test "$tun" && mknod -m 666 "$tun/tun" c 10 200 &&
  mount --bind "$tun/tun" /dev/net/tun || exit
setpriv --reuid="$user" --regid="$user" --init-groups "$@"
"#;

/// Which of the two programs of a name is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Whose {
    /// The real one.
    Original,
    /// Wharf under its name.
    Ours,
}

/// Both, the original first.
pub(crate) const BOTH: [Whose; 2] = [Whose::Original, Whose::Ours];

/// The host.
pub(crate) struct World {
    dir: tempfile::TempDir,
    user: Option<String>,
}

/// Programs of others that the scripts call by their Debian paths.
const PROGRAMS: [&str; 7] =
    ["podman", "pasta", "rootlesskit", "runc", "slirp4netns", "socat", "newuidmap"];

/// What an ordinary user would need and has not, in words. Root gives itself all but the programs.
fn lacking(root: bool) -> Vec<String> {
    let mut lacking = Vec::new();
    let missing: Vec<_> =
        PROGRAMS.into_iter().filter(|name| !Path::new("/usr/bin").join(name).exists()).collect();
    if !missing.is_empty() {
        lacking
            .push(format!("no {} here; `scripts/setup interop` installs it", missing.join(", ")));
    }
    if root {
        return lacking;
    }
    let tun = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    if let Err(error) = tun {
        lacking.push(format!(
            "/dev/net/tun cannot be opened ({error}), and only root can change that: chmod 666 /dev/net/tun"
        ));
    }
    let user = std::env::var("USER").unwrap_or_default();
    for file in ["/etc/subuid", "/etc/subgid"] {
        let table = std::fs::read_to_string(file).unwrap_or_default();
        if !table.lines().any(|line| line.split(':').next() == Some(user.as_str())) {
            lacking.push(format!(
                "`{user}` ($USER) has no subordinate numbers in {file}, and only root can give some: \
                 usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
            ));
        }
    }
    lacking
}

impl World {
    pub(crate) fn new() -> Self {
        let root = rustix::process::geteuid().is_root();
        let lacking = lacking(root);
        assert!(
            lacking.is_empty(),
            "these tests run as root, who makes a user for them, or as a user who has what they need; this one \
             has not:\n- {}",
            lacking.join("\n- ")
        );
        let dir = tempfile::tempdir().unwrap();
        open_to_all(dir.path());
        let bin = dir.path().join("bin");
        for name in ["bin", "tun", "home", "run"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::copy(env!("CARGO_BIN_EXE_wharf"), bin.join("wharf")).unwrap();
        for name in ["slirp4netns", "pasta"] {
            std::os::unix::fs::symlink("wharf", bin.join(name)).unwrap();
        }
        let user = root.then(|| make_user(&dir.path().join("home")));
        if let Some(user) = &user {
            sh(&format!("chown {user} {0}/home {0}/run", dir.path().display()));
        }
        Self { dir, user }
    }

    /// Runs a script: `$BIN` has our programs, `$DIR` is for files, `$PROGRAM` is the named one of `whose`.
    pub(crate) fn script(&self, whose: Whose, program: &str, script: &str) -> Output {
        let dir = self.dir.path();
        let bin = dir.join("bin");
        let named = match whose {
            Whose::Original => PathBuf::from("/usr/bin").join(program),
            Whose::Ours => bin.join(program),
        };
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", TIMEOUT]);
        if let Some(user) = &self.user {
            let unshare =
                ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
            command.args(unshare).args(["bash", "-c", SETUP, user]).arg(dir.join("tun"));
        }
        let path = match whose {
            Whose::Original => "/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            Whose::Ours => format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()),
        };
        command.args(["bash", "-uc"]).arg(script).env_clear().current_dir(dir.join("home"));
        command
            .env("PATH", path)
            .env("BIN", &bin)
            .env("PROGRAM", named)
            .env("DIR", dir.join("run"));
        command.env("HOME", dir.join("home")).env("XDG_RUNTIME_DIR", dir.join("run"));
        command.env("TMPDIR", dir.join("run"));
        if let Some(user) = &self.user {
            command.env("USER", user);
        } else if let Some(user) = std::env::var_os("USER") {
            command.env("USER", user);
        }
        command.output().expect("`timeout` can be run")
    }

    /// The same, which must succeed; what it printed.
    pub(crate) fn ok(&self, whose: Whose, program: &str, script: &str) -> String {
        let output = self.script(whose, program, script);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{whose:?}, {}:\n{out}\n{err}", output.status);
        out
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(user) = &self.user {
            sh(&format!("userdel --force {user} 2>/dev/null; true"));
            // Some files in it are those of the user's subordinate numbers.
            let _ = std::fs::remove_dir_all(self.dir.path());
        }
    }
}

/// `useradd` gives it subordinate numbers.
fn make_user(home: &Path) -> String {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let user = format!("wharf-peer-{}-{count}", std::process::id());
    sh(&format!("useradd --no-create-home --home-dir {} {user}", home.display()));
    user
}

fn sh(script: &str) {
    let status = Command::new("sh").args(["-c", script]).status().unwrap();
    assert!(status.success(), "{script}: {status}");
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a script of bash in namespaces of its own, as root of them; what it printed. It finds our program as
/// `$WHARF` and a directory of its own as `$DIR`, and may take so many seconds.
pub(crate) fn run_in_namespaces(script: &str, seconds: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("timeout")
        .args(["--kill-after=5", seconds, "unshare", "--user", "--map-root-user", "--net"])
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-uc", script])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("WHARF", env!("CARGO_BIN_EXE_wharf"))
        .env("DIR", dir.path())
        .env("HOME", dir.path())
        .output()
        .unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}:\n{out}\n{err}", output.status);
    println!("{out}"); // shown when the test fails
    out
}

/// A shell function that waits until a command succeeds: `eventually CMD…`.
pub(crate) const EVENTUALLY: &str = r#"
eventually() { for _ in $(seq 150); do "$@" && return; sleep 0.1; done; echo "gave up: $*" >&2; return 1; }
serve() { socat "$1,reuseaddr,fork" "SYSTEM:echo $2" & }
says() { [ "$(socat -T3 - "$1" </dev/null 2>/dev/null)" = "$2" ]; }
namespace() { unshare --user --map-root-user --net sleep 100 & pid=$!; eventually in_namespace true; }
in_namespace() { [ "$(readlink /proc/$pid/ns/net)" != "$(readlink /proc/self/ns/net)" ] &&
  nsenter --target $pid --user --preserve-credentials --net "$@"; }
"#;
