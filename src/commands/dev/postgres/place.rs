//! Who runs the server, and in which directories.

use std::fs::{DirBuilder, File, Metadata, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, geteuid, test_kill_process};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::PostgresError;

/// Of the 107 bytes that the path of a socket may have, its directory's parent gets these.
const LONGEST_SCRATCH: usize = 60;
/// How long the guardian of an owner that is gone may take to stop the server.
const TIDYING: Duration = Duration::from_mins(1);
const READ_WRITE_ENTER: u32 = 0o7;
const ENTER: u32 = 0o1;

/// A user of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
}

impl User {
    /// The one that servers run as because they refuse to run as root. `None`: we are not root.
    fn for_servers() -> Result<Option<Self>, PostgresError> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| Self::named(name, &passwd))
            .map(Some)
            .ok_or(PostgresError::NoUser)
    }

    fn named(name: &str, passwd: &str) -> Option<Self> {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut numbers = line.split(':').skip(2).map(|field| field.parse().ok());
        Some(Self { uid: numbers.next()??, gid: numbers.next()?? })
    }

    fn may(self, wanted: u32, metadata: &Metadata) -> bool {
        let shift = match (metadata.uid() == self.uid, metadata.gid() == self.gid) {
            (true, _) => 6,
            (false, true) => 3,
            (false, false) => 0,
        };
        (metadata.mode() >> shift) & wanted == wanted
    }

    /// Whether this user gets to `dir`, or as far towards it as it exists.
    fn reaches(self, dir: &Path) -> bool {
        let Some(existing) = dir.ancestors().find_map(|dir| dir.canonicalize().ok()) else {
            return false;
        };
        existing.ancestors().all(|dir| dir.metadata().is_ok_and(|metadata| self.may(ENTER, &metadata)))
    }
}

/// Where a server lives.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) user: Option<User>,
    pub(super) data_dir: PathBuf,
    pub(super) run_dir: PathBuf,
}

impl Place {
    /// Picks the user and the directories, makes the one that is to be kept and locks it. The temporary one is left to
    /// the guardian, which also removes it.
    pub(super) async fn choose(
        kept: Option<&Path>,
        fresh: bool,
    ) -> Result<(Self, Option<File>), PostgresError> {
        let mut user = User::for_servers()?;
        let scratch = scratch(user);
        let run_dir = run_dir(&scratch);
        let Some(wanted) = kept else {
            let data_dir = run_dir.clone();
            return Ok((Self { user, data_dir, run_dir }, None));
        };
        let mut data_dir =
            std::path::absolute(wanted).map_err(PostgresError::io(wanted.display().to_string()))?;
        if let Some(somebody) = &mut user {
            *somebody = owner_of_data(&data_dir).unwrap_or(*somebody);
            if !data_dir.parent().is_some_and(|parent| somebody.reaches(parent)) {
                data_dir = substitute(&scratch, &data_dir);
                *somebody = User::for_servers()?.unwrap_or(*somebody);
                refuse_a_strangers(&data_dir, *somebody)?;
            }
        }
        make(&data_dir, user).map_err(PostgresError::io(format!("making {}", data_dir.display())))?;
        let lock = lock(&data_dir).await?;
        if fresh {
            forget(&data_dir).map_err(PostgresError::io(format!("emptying {}", data_dir.display())))?;
        }
        Ok((Self { user, data_dir, run_dir }, Some(lock)))
    }
}

/// A directory for sockets, with a short name that nobody else has.
fn run_dir(scratch: &Path) -> PathBuf {
    let name = Uuid::new_v4().simple().to_string();
    scratch.join(format!("tp-{}", &name[..10]))
}

/// The system's temporary directory, unless its name is too long or too odd for a connection string, or it is closed
/// to the server's user.
fn scratch(user: Option<User>) -> PathBuf {
    let usual = std::env::temp_dir();
    let plain = usual.to_str().is_some_and(|name| {
        name.len() <= LONGEST_SCRATCH
            && name.chars().all(|char| char.is_ascii_alphanumeric() || "/._-".contains(char))
    });
    let open = user.is_none_or(|user| {
        user.reaches(&usual) && usual.metadata().is_ok_and(|metadata| user.may(READ_WRITE_ENTER, &metadata))
    });
    if plain && open { usual } else { "/tmp".into() }
}

/// Data that an ordinary user has made goes on to be theirs.
fn owner_of_data(data_dir: &Path) -> Option<User> {
    let metadata = data_dir.join("cluster").metadata().ok()?;
    (metadata.uid() != 0).then(|| User { uid: metadata.uid(), gid: metadata.gid() })
}

/// The same for every start with the same directory.
fn substitute(scratch: &Path, data_dir: &Path) -> PathBuf {
    let hash = Uuid::new_v5(&Uuid::NAMESPACE_URL, data_dir.as_os_str().as_encoded_bytes());
    scratch.join(format!("task-processor-{}", &hash.simple().to_string()[..12]))
}

/// Its name can be foreseen, so somebody may have put something in its place for us to give away.
fn refuse_a_strangers(dir: &Path, user: User) -> Result<(), PostgresError> {
    match dir.symlink_metadata() {
        Ok(metadata) if !metadata.is_dir() || ![0, user.uid].contains(&metadata.uid()) => {
            Err(PostgresError::NotOurs(dir.to_owned()))
        }
        _ => Ok(()),
    }
}

fn make(dir: &Path, user: Option<User>) -> std::io::Result<()> {
    if let Some(parent) = dir.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    if !dir.is_dir() {
        DirBuilder::new().mode(0o700).create(dir)?;
    }
    match user {
        Some(user) => chown(dir, Some(user.uid), Some(user.gid)),
        None => Ok(()),
    }
}

/// At once or not at all: what is left of a removal that was cut short is no cluster to start.
fn forget(data_dir: &Path) -> std::io::Result<()> {
    let (cluster, half) = (data_dir.join("cluster"), data_dir.join("cluster.new"));
    if half.exists() {
        std::fs::remove_dir_all(&half)?;
    }
    if cluster.exists() {
        std::fs::rename(&cluster, &half)?;
        std::fs::remove_dir_all(&half)?;
    }
    Ok(())
}

/// The lock is the guardian's to keep, so it may still be held though its owner is gone: that is worth waiting for.
async fn lock(data_dir: &Path) -> Result<File, PostgresError> {
    let path = data_dir.join("lock");
    let failed = || PostgresError::io(format!("locking {}", path.display()));
    let mut file = File::options().create(true).append(true).open(&path).map_err(failed())?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(failed()(error)),
            Err(TryLockError::WouldBlock) if holder_lives(&path) || began.elapsed() > TIDYING => {
                return Err(PostgresError::InUse(data_dir.to_owned()));
            }
            Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(50)).await,
        }
    }
    file.set_len(0).map_err(failed())?;
    write!(file, "{}", std::process::id()).map_err(failed())?;
    Ok(file)
}

/// Says that the lock's owner is done with the data and only its guardian still has to finish.
pub(super) fn let_go(data_dir: &Path) -> std::io::Result<()> {
    std::fs::write(data_dir.join("lock"), "")
}

fn holder_lives(lock: &Path) -> bool {
    let holder = std::fs::read_to_string(lock).ok();
    holder
        .and_then(|text| Pid::from_raw(text.parse().ok()?))
        .is_some_and(|pid| matches!(test_kill_process(pid), Ok(()) | Err(Errno::PERM)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let passwd =
            "root:x:0:0::/:\nmy-nobody:x:1:1::/:\nnobody:x:65534:65533:nobody:/none:/no\nodd:x:-2:-2::/:";
        let nobody = User { uid: 65534, gid: 65533 };
        assert_eq!(User::named("nobody", passwd), Some(nobody));
        assert_eq!(User::named("postgres", passwd), None);
        assert_eq!(User::named("odd", passwd), None);
    }
}
