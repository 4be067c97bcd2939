//! Changes of a file, however they are made: written in place, replaced, or a link turned elsewhere.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// Links that are followed.
const LINKS_MAX: usize = 8;

/// A watch over one path.
#[derive(Debug)]
pub struct Watch {
    inotify: OwnedFd,
    path: PathBuf,
}

impl Watch {
    /// Watches from now on, whether the file exists or not.
    pub fn file(path: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC)?;
        let watch = Self { inotify, path: path.to_owned() };
        watch.look();
        Ok(watch)
    }

    /// Waits for a change of something on the way to the file, which need not be one of its content.
    pub fn wait(&self) -> io::Result<()> {
        let mut buf = [MaybeUninit::uninit(); 4096];
        inotify::Reader::new(&self.inotify, &mut buf).next()?;
        // A link may lead elsewhere now, or the file be another one.
        self.look();
        Ok(())
    }

    /// The file itself and the directory of each link on the way to it. Watching twice changes nothing.
    fn look(&self) {
        let content = WatchFlags::CLOSE_WRITE | WatchFlags::MODIFY | WatchFlags::MASK_ADD;
        let names = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::MASK_ADD;
        let mut path = self.path.clone();
        for _ in 0..LINKS_MAX {
            // What is not there cannot be watched; its directory says when it comes.
            if let Some(dir) = path.parent() {
                let _ = inotify::add_watch(&self.inotify, dir, names);
            }
            let Ok(link) = std::fs::read_link(&path) else { break };
            path = path.parent().map_or(link.clone(), |dir| dir.join(&link));
        }
        let _ = inotify::add_watch(&self.inotify, &path, content);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_file_is_seen_to_be_written_replaced_and_linked_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let (link, other) = (dir.path().join("link"), tempfile::tempdir().unwrap());
        let target = other.path().join("file");
        std::fs::write(&target, "a").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let watch = Watch::file(&link).unwrap();
        let (sender, seen) = mpsc::channel();
        std::thread::spawn(move || while watch.wait().is_ok() && sender.send(()).is_ok() {});
        let noticed = || {
            seen.recv_timeout(Duration::from_secs(5)).expect("it is noticed");
            // The rest of the same change.
            while seen.recv_timeout(Duration::from_millis(50)).is_ok() {}
        };
        std::fs::write(&target, "b").unwrap();
        noticed();
        std::fs::write(other.path().join("new"), "c").unwrap();
        std::fs::rename(other.path().join("new"), &target).unwrap();
        noticed();
        std::fs::remove_file(&link).unwrap();
        std::fs::write(&link, "d").unwrap();
        noticed();
    }
}
