//! The folders of containers, `containers/N/{out.0,out.1,record}`: made ahead and removed behind by a thread in the background.
//!
//! A folder is nobody's until its record says whose (one write), and nobody's again once its record is gone (one unlink). So a launch
//! waits for one system call whatever the file system takes for files, and whoever comes after a crash finds a whole record or none:
//! folders without one are removed at the next start. Nothing of a folder is ever used again, as a reader may still have its log open.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Error;

/// Made ahead; three open files each.
const READY: usize = 16;
/// Removed together: waking a thread costs as much as removing a folder.
const BATCH: usize = 16;
/// And at the latest after this.
const PATIENCE: Duration = Duration::from_millis(50);
/// Until making ahead is tried again after an error, which a launch would tell.
const PAUSE: Duration = Duration::from_secs(1);
/// What is in a folder.
const FILES: [&str; 3] = ["out.0", "out.1", RECORD];
/// The file that says whose a folder is.
pub const RECORD: &str = "record";

/// A folder and its files, open.
#[derive(Debug)]
pub struct Folder {
    pub path: PathBuf,
    pub logs: [File; 2],
    pub record: File,
}

#[derive(Debug, Default)]
struct State {
    ready: Vec<Folder>,
    gone: Vec<PathBuf>,
    next: u64,
    /// A batch is being removed.
    removing: bool,
    closing: bool,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
    removed: Condvar,
}

/// Folders that are nobody's, and the thread that makes and removes them.
#[derive(Debug)]
pub struct Folders {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Folders {
    /// Of the folder `root`, which exists; what others may have made there is left alone.
    pub fn start(root: &Path) -> Result<Self, Error> {
        let next = names(root)?.into_iter().max().map_or(0, |last| last + 1);
        let state = Mutex::new(State { next, ..State::default() });
        let shared =
            Arc::new(Shared { root: root.to_owned(), state, changed: Condvar::new(), removed: Condvar::new() });
        let for_thread = Arc::clone(&shared);
        Ok(Self { shared, thread: Some(std::thread::spawn(move || for_thread.serve())) })
    }

    /// One made ahead, or made now.
    pub fn take(&self) -> Result<Folder, Error> {
        let mut state = self.shared.lock();
        let found = state.ready.pop();
        if state.ready.len() == READY / 2 {
            self.shared.changed.notify_one();
        }
        if let Some(folder) = found {
            return Ok(folder);
        }
        let path = self.shared.next_path(&mut state);
        drop(state);
        make(path)
    }

    /// Makes a folder nobody's; what is in it goes in the background.
    pub fn give_up(&self, path: PathBuf) -> Result<(), Error> {
        let record = path.join(RECORD);
        match fs::remove_file(&record) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::State { what: "remove", path: record, source }),
            Ok(()) => {}
        }
        let mut state = self.shared.lock();
        state.gone.push(path);
        if state.gone.len() == 1 || state.gone.len() == BATCH {
            self.shared.changed.notify_one();
        }
        Ok(())
    }

    /// Waits until everything that was given up has been removed.
    pub fn settle(&self) {
        let busy = |state: &mut State| state.removing || !state.gone.is_empty();
        let state = self.shared.lock();
        drop(self.shared.removed.wait_while(state, busy).unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that makes folders had panicked");
        }
    }
}

/// Numbers of the folders in `root`.
pub fn names(root: &Path) -> Result<Vec<u64>, Error> {
    let wrong = |source| Error::State { what: "read", path: root.to_owned(), source };
    let mut numbers = Vec::new();
    for entry in fs::read_dir(root).map_err(wrong)? {
        let name = entry.map_err(wrong)?.file_name();
        match name.to_str().and_then(|name| name.parse().ok()) {
            Some(number) => numbers.push(number),
            None => tracing::warn!(?name, "not a container's folder, left alone"),
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn make(path: PathBuf) -> Result<Folder, Error> {
    let open = |name: &str, append: bool| {
        OpenOptions::new()
            .read(!append)
            .write(!append)
            .append(append)
            .create_new(true)
            .mode(0o600)
            .open(path.join(name))
    };
    if let Err(source) = fs::create_dir(&path) {
        return Err(Error::State { what: "make", path, source });
    }
    let files = || Ok([open(FILES[0], true)?, open(FILES[1], true)?, open(RECORD, false)?]);
    match files() {
        Ok([older, newer, record]) => Ok(Folder { path, logs: [older, newer], record }),
        Err(source) => {
            let removed = remove(&path);
            tracing::debug!(?removed, "undone");
            Err(Error::State { what: "make the files of a container in", path, source })
        }
    }
}

/// Removes a folder with what it may hold; one that is not there is removed already.
fn remove(path: &Path) -> io::Result<()> {
    let missing_is_fine = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    for name in FILES {
        missing_is_fine(fs::remove_file(path.join(name)))?;
    }
    missing_is_fine(fs::remove_dir(path))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_path(&self, state: &mut State) -> PathBuf {
        let number = state.next;
        state.next += 1;
        self.root.join(number.to_string())
    }

    /// The background thread. Making comes first, as a launch may wait for it.
    fn serve(&self) {
        let mut state = self.lock();
        while !state.closing {
            state = if state.ready.len() < READY {
                self.fill(state)
            } else if state.gone.is_empty() {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else if state.gone.len() < BATCH {
                let (state, late) = self.changed.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner);
                if late.timed_out() { self.empty(state) } else { state }
            } else {
                self.empty(state)
            };
        }
        let unused: Vec<PathBuf> = state.ready.drain(..).map(|folder| folder.path).collect();
        state.gone.extend(unused);
        drop(self.empty(state));
    }

    fn fill<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while state.ready.len() < READY && !state.closing {
            let path = self.next_path(&mut state);
            drop(state);
            let made = make(path);
            state = self.lock();
            match made {
                Ok(folder) => state.ready.push(folder),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot make a folder ahead");
                    return self.changed.wait_timeout(state, PAUSE).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
        state
    }

    fn empty<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let batch = std::mem::take(&mut state.gone);
        state.removing = true;
        drop(state);
        for path in batch {
            if let Err(error) = remove(&path) {
                tracing::warn!(path = %path.display(), %error, "a forgotten container's folder cannot be removed; the next start tries again");
            }
        }
        let mut state = self.lock();
        state.removing = false;
        self.removed.notify_all();
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    #[test]
    fn every_folder_is_another_one_and_nothing_is_left_of_those_given_up() {
        let root = root();
        let folders = Folders::start(root.path()).expect("started");
        let taken: Vec<Folder> = (0..3 * READY).map(|_| folders.take().expect("a folder")).collect();
        let mut paths: Vec<PathBuf> = taken.into_iter().map(|folder| folder.path).collect();
        paths.dedup();
        assert_eq!(paths.len(), 3 * READY);
        let kept = paths.pop().expect("one");
        for path in paths {
            folders.give_up(path).expect("given up");
        }
        folders.settle();
        drop(folders);
        let left: Vec<PathBuf> =
            fs::read_dir(root.path()).expect("read").map(|entry| entry.expect("an entry").path()).collect();
        assert_eq!(left, [kept]);
    }

    #[test]
    fn numbers_go_on_where_an_earlier_runtime_left_off() {
        let root = root();
        fs::create_dir(root.path().join("41")).expect("made");
        let folders = Folders::start(root.path()).expect("started");
        assert!(names(root.path()).expect("read").contains(&41));
        let name = folders.take().expect("a folder").path.file_name().expect("a name").to_owned();
        assert!(name.to_str().and_then(|name| name.parse::<u64>().ok()).is_some_and(|number| number > 41));
    }

    #[test]
    fn what_cannot_be_made_is_told_with_its_path_and_leaves_nothing() {
        let root = root();
        let path = root.path().join("missing/7");
        match make(path.clone()) {
            Err(Error::State { path: told, .. }) => assert_eq!(told, path),
            other => panic!("{other:?}"),
        }
        assert_eq!(names(root.path()).expect("read"), [0; 0]);
    }

    #[test]
    fn a_folder_that_is_there_already_is_never_taken_over() {
        let root = root();
        let path = root.path().join("7");
        drop(make(path.clone()).expect("made"));
        assert!(make(path.clone()).is_err());
        assert!(path.join(RECORD).exists());
    }
}
