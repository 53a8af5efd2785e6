//! A folder of certificates: who gets which, and what becomes of it when files change. A new certificate that is not right is told of,
//! loudly, and the one that it should have replaced stays.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::pair::{Pair, TlsError};

/// The folder, as it was read last.
#[derive(Debug)]
pub(in crate::ingress) struct Certificates {
    folder: PathBuf,
    default: Option<String>,
    known: RwLock<Known>,
    seen: Mutex<Seen>,
}

/// What the files were when they were read: time, size, number and mode of each.
type Seen = BTreeMap<PathBuf, (i64, i64, u64, u64, u32)>;

/// Certificates by what they are called, and by whom they are for.
#[derive(Debug, Default)]
struct Known {
    pairs: BTreeMap<PathBuf, Arc<Pair>>,
    hosts: BTreeMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Reads the folder; whatever is not right in it is an error.
    pub(super) fn read(folder: &Path, default: Option<String>) -> Result<Self, TlsError> {
        let seen = seen(folder)?;
        let mut pairs = BTreeMap::new();
        for path in certificates(&seen) {
            pairs.insert(path.clone(), Arc::new(Pair::read(path)?));
        }
        if pairs.is_empty() {
            return Err(TlsError::None { path: folder.to_owned() });
        }
        let known = Known::new(folder, pairs, default.as_deref())?;
        Ok(Self { folder: folder.to_owned(), default, known: RwLock::new(known), seen: Mutex::new(seen) })
    }

    /// Looks whether files have changed, and takes the changes in.
    pub(super) fn look(&self) {
        let now = match seen(&self.folder) {
            Ok(now) => now,
            Err(error) => return tracing::error!(error = chain(&error), "the certificates stay as they are"),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return;
        }
        let before = std::mem::replace(&mut *seen, now);
        let pairs = self.changed(&before, &seen);
        match Known::new(&self.folder, pairs, self.default.as_deref()) {
            Ok(known) => *self.known.write().unwrap_or_else(PoisonError::into_inner) = known,
            Err(error) => tracing::error!(error = chain(&error), "the certificates stay as they are"),
        }
    }

    fn changed(&self, before: &Seen, now: &Seen) -> BTreeMap<PathBuf, Arc<Pair>> {
        let old = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut pairs = BTreeMap::new();
        for path in certificates(now) {
            let known = old.pairs.get(path);
            let key = path.with_extension("key");
            let same = before.get(path) == now.get(path) && before.get(&key) == now.get(&key);
            let pair = match known.filter(|_| same) {
                Some(pair) => Some(pair.clone()),
                None => reread(path, known),
            };
            pairs.extend(pair.map(|pair| (path.clone(), pair)));
        }
        pairs
    }

    fn find(&self, host: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let exact = |host: &str| known.hosts.get(&host.to_ascii_lowercase()).cloned();
        let wild = |host: &str| exact(&format!("*.{}", host.split_once('.')?.1));
        host.and_then(|host| exact(host).or_else(|| wild(host))).or_else(|| known.default.clone())
    }
}

fn reread(path: &Path, known: Option<&Arc<Pair>>) -> Option<Arc<Pair>> {
    match Pair::read(path) {
        Ok(pair) => {
            tracing::info!(certificate = %path.display(), names = pair.names.join(", "), "a certificate was read anew");
            Some(Arc::new(pair))
        }
        Err(error) => {
            let instead = if known.is_some() { "the one before it stays in use" } else { "it is not used" };
            tracing::error!(error = chain(&error), "a certificate is not right, and {instead}");
            known.cloned()
        }
    }
}

impl Known {
    fn new(folder: &Path, pairs: BTreeMap<PathBuf, Arc<Pair>>, default: Option<&str>) -> Result<Self, TlsError> {
        let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let chosen = match default {
            None => pairs.values().next().filter(|_| pairs.len() == 1),
            Some(default) => {
                let found = pairs.iter().find(|(path, _)| name(path) == default).map(|(_, pair)| pair);
                let there = || pairs.keys().map(|path| name(path)).collect::<Vec<_>>().join(", ");
                let missing =
                    || TlsError::Default { path: folder.to_owned(), name: default.to_owned(), there: there() };
                Some(found.ok_or_else(missing)?)
            }
        };
        let chosen = chosen.map(|pair| pair.key.clone());
        let mut hosts = BTreeMap::new();
        for pair in pairs.values() {
            for host in &pair.names {
                hosts.entry(host.clone()).or_insert_with(|| pair.key.clone());
            }
        }
        Ok(Self { pairs, hosts, default: chosen })
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}

/// Certificates and keys that are there, as they are.
fn seen(folder: &Path) -> Result<Seen, TlsError> {
    let failed = |source| TlsError::Folder { path: folder.to_owned(), source };
    let mut seen = Seen::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let ours = path.extension().is_some_and(|end| end == "crt" || end == "key");
        // Through links: that is how files are put in place of others. One that vanishes just now is as good as gone.
        if let Some(known) = std::fs::metadata(&path).ok().filter(|known| ours && known.is_file()) {
            seen.insert(path, (known.mtime(), known.mtime_nsec(), known.size(), known.ino(), known.mode()));
        }
    }
    Ok(seen)
}

fn certificates(seen: &Seen) -> impl Iterator<Item = &PathBuf> {
    seen.keys().filter(|path| path.extension().is_some_and(|end| end == "crt"))
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    crate::worker::chain(error)
}
