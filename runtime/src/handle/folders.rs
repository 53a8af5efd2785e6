//! The folders of containers, `containers/N/{out.0,out.1,record}`: made ahead, and made ready again behind, by a thread in the background.
//!
//! A folder is nobody's until its record says whose (one write), and nobody's again once its record is blank (one more). So a launch waits
//! for one system call whatever the file system takes for files, and whoever comes after a crash finds a whole record or none: folders
//! without one are removed at the next start.
//!
//! A folder is used again once its files are empty, unless somebody was told where they are: that reader may have them open still, and must not see
//! what another container writes. Removing it and making another would be simpler, but ext4 looks at every inode freed in the last five seconds
//! before it gives out one: two milliseconds for each container once a few hundred a second come and go.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Error;
use super::record::Record;

/// Made ahead; three open files each.
const READY: usize = 24;
/// With so few left, there is no waiting for more to be made ready together.
const LOW: usize = 6;
/// Kept open for the next ones.
const KEEP: usize = 24;
/// Kept beside, closed: opening a file is four times as quick as making one, and the file system is not asked for inodes.
const SPARE: usize = 256;
/// Made ready again together: waking a thread costs as much as a folder.
const BATCH: usize = 12;
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
    pub place: Place,
    pub logs: [File; 2],
    pub record: File,
}

/// Where a folder is.
#[derive(Debug, Clone)]
pub struct Place {
    path: PathBuf,
    told: Arc<AtomicBool>,
}

impl Place {
    /// One whose readers are unknown.
    fn found(path: PathBuf) -> Self {
        Self { path, told: Arc::new(AtomicBool::new(true)) }
    }

    fn new(path: PathBuf) -> Self {
        Self { path, told: Arc::new(AtomicBool::new(false)) }
    }

    /// For readers of its logs, who may keep them open.
    pub fn tell(&self) -> &Path {
        self.told.store(true, Ordering::Relaxed);
        &self.path
    }

    /// Its record, for us and for errors.
    pub fn record(&self) -> PathBuf {
        self.path.join(RECORD)
    }

    fn is_private(&self) -> bool {
        !self.told.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct State {
    ready: Vec<Folder>,
    /// As good as new, and closed.
    spare: Vec<Place>,
    gone: Vec<Place>,
    next: u64,
    /// A batch is under way.
    clearing: bool,
    /// Somebody waits for the rest.
    hurry: bool,
    closing: bool,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
    cleared: Condvar,
}

/// Folders that are nobody's, and the thread that makes and clears them.
#[derive(Debug)]
pub struct Folders {
    shared: Arc<Shared>,
    found: Vec<Place>,
    thread: Option<JoinHandle<()>>,
}

impl Folders {
    /// Of the folder `root`, which exists; what others may have made there is left alone.
    pub fn start(root: &Path) -> Result<Self, Error> {
        spread(root).map_err(|source| Error::State {
            what: "look at the file system of",
            path: root.into(),
            source,
        })?;
        let numbers = numbers(root)?;
        let next = numbers.last().map_or(0, |last| last + 1);
        let found = numbers.into_iter().map(|number| Place::found(root.join(number.to_string()))).collect();
        let state = Mutex::new(State { next, ..State::default() });
        let shared =
            Arc::new(Shared { root: root.to_owned(), state, changed: Condvar::new(), cleared: Condvar::new() });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("folders".to_owned()).spawn(move || for_thread.serve());
        let failed = |source| Error::State { what: "start a thread for", path: root.to_owned(), source };
        Ok(Self { shared, found, thread: Some(thread.map_err(failed)?) })
    }

    /// Those that an earlier runtime left, whoever's they are.
    pub fn found(&self) -> Vec<Place> {
        self.found.clone()
    }

    /// One made ahead, or made now.
    pub fn take(&self) -> Result<Folder, Error> {
        let mut state = self.shared.lock();
        let found = state.ready.pop();
        if state.ready.len() == LOW {
            self.shared.changed.notify_one();
        }
        if let Some(folder) = found {
            return Ok(folder);
        }
        let spare = state.spare.pop();
        let path = self.shared.next_path(&mut state);
        drop(state);
        open_or_make(spare, path)
    }

    /// Makes a folder nobody's; what is in it goes in the background.
    pub fn give_up(&self, place: Place) -> Result<(), Error> {
        match OpenOptions::new().write(true).open(place.record()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.and_then(|record| Record::blank(&record)),
        }
        .map_err(|source| Error::State { what: "blank", path: place.record(), source })?;
        let mut state = self.shared.lock();
        state.gone.push(place);
        if state.gone.len() == 1 || state.gone.len() == BATCH {
            self.shared.changed.notify_one();
        }
        Ok(())
    }

    /// Waits until nothing is left of what was given up.
    pub fn settle(&self) {
        let busy = |state: &mut State| state.clearing || !state.gone.is_empty();
        let mut state = self.shared.lock();
        state.hurry = true;
        self.shared.changed.notify_one();
        drop(self.shared.cleared.wait_while(state, busy).unwrap_or_else(PoisonError::into_inner));
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

/// Without a journal, ext4 looks at every inode of a group that was freed within minutes before it gives one out: a third of what a growth by hundreds takes,
/// once as many have gone. There each folder is put into a group of its own, as it does with those of people.
fn spread(root: &Path) -> io::Result<()> {
    let dir = File::open(root)?;
    let device = dir.metadata()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let told = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).and_then(|device| {
        let name = device.file_name().unwrap_or_default();
        fs::read_to_string(Path::new("/sys/fs/ext4").join(name).join("journal_task"))
    });
    match told {
        Ok(journal) if journal.trim() == "<none>" => {
            let spread = rustix::fs::ioctl_getflags(&dir)
                .and_then(|flags| rustix::fs::ioctl_setflags(&dir, flags | rustix::fs::IFlags::TOPDIR));
            tracing::debug!(?spread, root = %root.display(), "a file system without a journal");
            Ok(())
        }
        // Another file system, or of no device; or nobody may look.
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Err(error),
        _ => Ok(()),
    }
}

/// Numbers of the folders in `root`, in order.
fn numbers(root: &Path) -> Result<Vec<u64>, Error> {
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

/// A spare one that cannot be opened is left to the next start.
fn open_or_make(spare: Option<Place>, path: PathBuf) -> Result<Folder, Error> {
    match spare.map(|place| open(place, false)) {
        Some(Ok(folder)) => Ok(folder),
        _ => make(path),
    }
}

fn make(path: PathBuf) -> Result<Folder, Error> {
    if let Err(source) = fs::create_dir(&path) {
        return Err(Error::State { what: "make", path, source });
    }
    open(Place::new(path), true).map_err(|(place, source)| {
        let removed = remove(&place.path);
        tracing::debug!(?removed, "undone");
        Error::State { what: "make the files of a container in", path: place.path, source }
    })
}

/// Opens the files of a folder, `fresh` ones or those that are there.
fn open(place: Place, fresh: bool) -> Result<Folder, (Place, io::Error)> {
    let options = || {
        let mut options = OpenOptions::new();
        options.create_new(fresh).mode(0o600);
        options
    };
    let log = |name: &str| options().append(true).open(place.path.join(name));
    // It is read once for each time it was written, and nobody asks when that was.
    let record = || options().read(true).write(true).custom_flags(libc::O_NOATIME).open(place.record());
    let files = || Ok(([log(FILES[0])?, log(FILES[1])?], record()?));
    match files() {
        Ok((logs, record)) => Ok(Folder { place, logs, record }),
        Err(error) => Err((place, error)),
    }
}

/// Makes a folder whose record is blank as good as new.
fn renew(place: Place) -> io::Result<Folder> {
    let folder = open(place, false).map_err(|(_, error)| error)?;
    for log in &folder.logs {
        if log.metadata()?.len() > 0 {
            log.set_len(0)?;
        }
    }
    Ok(folder)
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

    /// The background thread. Those given up come back before new ones are made.
    fn serve(&self) {
        let mut state = self.lock();
        while !state.closing {
            let hurry = state.hurry || state.ready.len() <= LOW;
            state = if state.gone.len() >= BATCH || hurry && !state.gone.is_empty() {
                self.clear(state)
            } else if state.ready.len() + state.gone.len() < READY {
                self.fill(state)
            } else if state.gone.is_empty() {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                let (state, late) = self.changed.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner);
                if late.timed_out() { self.clear(state) } else { state }
            };
        }
        let mut unused = std::mem::take(&mut state.spare);
        unused.extend(state.ready.drain(..).map(|folder| folder.place));
        state.gone.extend(unused);
        drop(self.clear(state));
    }

    fn fill<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while state.ready.len() + state.gone.len() < READY && !state.closing {
            let (spare, path) = (state.spare.pop(), self.next_path(&mut state));
            drop(state);
            let made = open_or_make(spare, path);
            state = self.lock();
            match made {
                Ok(folder) => state.ready.push(folder),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot make a folder ahead");
                    // Those given up make room, and somebody may wait for them to go.
                    if !state.gone.is_empty() {
                        return self.clear(state);
                    }
                    return self.changed.wait_timeout(state, PAUSE).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
        state
    }

    fn clear<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let batch = std::mem::take(&mut state.gone);
        let room = |most: usize, has: usize| if state.closing { 0 } else { most.saturating_sub(has) };
        let (mut room, mut spare_room) = (room(KEEP, state.ready.len()), room(SPARE, state.spare.len()));
        state.clearing = true;
        drop(state);
        let (mut ready, mut spare) = (Vec::with_capacity(batch.len()), Vec::new());
        for place in batch {
            match clear(place, room + spare_room > 0) {
                Ok(None) => {}
                Ok(Some(folder)) if room > 0 => {
                    room -= 1;
                    ready.push(folder);
                }
                Ok(Some(folder)) => {
                    spare_room -= 1;
                    spare.push(folder.place);
                }
                Err((path, error)) => {
                    tracing::warn!(path = %path.display(), %error, "a forgotten container's folder cannot be cleared; the next start tries again");
                }
            }
        }
        let mut state = self.lock();
        state.ready.append(&mut ready);
        state.spare.append(&mut spare);
        (state.clearing, state.hurry) = (false, false);
        self.cleared.notify_all();
        state
    }
}

/// Removes a folder, or gives it back for the next container.
fn clear(place: Place, room: bool) -> Result<Option<Folder>, (PathBuf, io::Error)> {
    let path = place.path.clone();
    let cleared = if room && place.is_private() { renew(place).map(Some) } else { remove(&path).map(|()| None) };
    cleared.map_err(|error| (path, error))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Write;

    use super::*;
    use crate::spec::ContainerId;

    fn root() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    fn paths(root: &Path) -> Vec<u64> {
        numbers(root).expect("read")
    }

    #[test]
    fn every_folder_is_another_one_and_nothing_is_left_of_those_given_up() {
        const MANY: usize = KEEP + SPARE + 50;
        let root = root();
        let folders = Folders::start(root.path()).expect("started");
        let mut taken: Vec<Folder> = (0..MANY).map(|_| folders.take().expect("a folder")).collect();
        let distinct: BTreeSet<PathBuf> = taken.iter().map(|folder| folder.place.path.clone()).collect();
        assert_eq!(distinct.len(), MANY);
        let kept = taken.pop().expect("one").place;
        for folder in taken {
            folders.give_up(folder.place).expect("given up");
        }
        folders.settle();
        assert!(paths(root.path()).len() <= KEEP + SPARE + 1, "{:?}", paths(root.path()));
        drop(folders);
        let left: Vec<PathBuf> =
            fs::read_dir(root.path()).expect("read").map(|entry| entry.expect("an entry").path()).collect();
        assert_eq!(left, [kept.path]);
    }

    #[test]
    fn a_folder_used_again_says_nothing_of_its_last_container() {
        let root = root();
        let folder = make(root.path().join("7")).expect("made");
        Record::new(ContainerId::new("last").expect("an id"), 1, [2; 16], 3).write(&folder.record).expect("written");
        (&folder.logs[1]).write_all(b"a secret").expect("written");
        Record::blank(&folder.record).expect("blanked");
        let renewed = clear(folder.place, true).expect("cleared").expect("to be used again");
        assert_eq!(Record::read(&renewed.record).expect("read"), None);
        assert_eq!(fs::read(renewed.place.path.join(FILES[1])).expect("read"), b"");
        (&renewed.logs[1]).write_all(b"next").expect("written at its beginning");
        assert_eq!(fs::read(renewed.place.path.join(FILES[1])).expect("read"), b"next");
    }

    #[test]
    fn a_folder_that_somebody_may_read_is_never_used_again() {
        let root = root();
        let folder = make(root.path().join("7")).expect("made");
        let reader = File::open(folder.place.tell().join(FILES[0])).expect("open");
        assert!(clear(folder.place, true).expect("cleared").is_none());
        assert_eq!(paths(root.path()), [0; 0]);
        drop(reader);
        let found = make(root.path().join("8")).expect("made").place.path;
        assert!(clear(Place::found(found), true).expect("cleared").is_none(), "an earlier runtime may have told of it");
    }

    #[test]
    fn those_given_up_go_even_when_none_can_be_made() {
        let root = root();
        let inside = root.path().join("inside");
        fs::create_dir(&inside).expect("made");
        let folders = Folders::start(&inside).expect("started");
        while folders.shared.lock().ready.len() < READY {
            std::thread::yield_now();
        }
        let given_up = folders.take().expect("a folder").place;
        let _kept = folders.take().expect("another");
        fs::rename(&inside, root.path().join("elsewhere")).expect("moved");
        folders.give_up(given_up).expect("given up");
        folders.settle();
        assert!(folders.shared.lock().gone.is_empty());
    }

    #[test]
    fn numbers_go_on_where_an_earlier_runtime_left_off() {
        let root = root();
        fs::create_dir(root.path().join("41")).expect("made");
        let folders = Folders::start(root.path()).expect("started");
        // Only what was there: those made ahead are nobody's business.
        let found: Vec<PathBuf> = folders.found().into_iter().map(|place| place.path).collect();
        assert_eq!(found, [root.path().join("41")]);
        let name = folders.take().expect("a folder").place.path.file_name().expect("a name").to_owned();
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
        assert_eq!(paths(root.path()), [0; 0]);
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
