//! [`Reloading`]: what was read from files, read again when they change.

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::task::AbortHandle;

/// How often the files are looked at. They are small, and read as a whole each time: neither a symbolic link that is turned
/// to another file nor a clock that goes back hides a change.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(1);
/// The largest file that is read, in bytes: some 10,000 users, or any chain of certificates.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// What was found in each of the files, in the order of their paths.
pub type Contents = Vec<Result<Vec<u8>, Unreadable>>;

/// Why a file cannot be read, for people. It names the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What some files mean, as they are now.
///
/// When they change and make no sense, what they meant before stays, and the fault is logged once.
pub struct Reloading<T> {
    current: Arc<ArcSwap<T>>,
    watch: AbortHandle,
}

impl<T: Send + Sync + 'static> Reloading<T> {
    /// Reads the files and watches them from then on, on the current Tokio runtime. `parse` says what they mean. Where they
    /// make no sense at first, `until_then` holds until they do, if it is given.
    ///
    /// # Errors
    /// What `parse` says of them, where nothing is to hold until then.
    pub fn new(
        what: &'static str,
        paths: Vec<PathBuf>,
        parse: impl Fn(&Contents) -> Result<T, String> + Send + 'static,
        until_then: Option<T>,
    ) -> Result<Self, String> {
        let mut seen = read(&paths);
        let first = match (parse(&seen), until_then) {
            (Ok(first), _) => first,
            (Err(fault), Some(until_then)) => {
                tracing::warn!("{what}: {fault}");
                until_then
            }
            (Err(fault), None) => return Err(fault),
        };
        let current = Arc::new(ArcSwap::from_pointee(first));
        let watched = current.clone();
        let watch = tokio::spawn(async move {
            let mut changed = None;
            loop {
                tokio::time::sleep(RELOAD_INTERVAL).await;
                let reading = paths.clone();
                let Ok(found) = tokio::task::spawn_blocking(move || read(&reading)).await else { return };
                // A file that is just being written is another one at the next look.
                if found == seen || changed.as_ref() != Some(&found) {
                    changed = Some(found);
                    continue;
                }
                match parse(&found) {
                    Ok(meaning) => {
                        watched.store(Arc::new(meaning));
                        tracing::info!("{what}: read again");
                    }
                    Err(fault) => tracing::error!("{what}: {fault}; it stays as it was"),
                }
                seen = found;
            }
        });
        Ok(Self { current, watch: watch.abort_handle() })
    }

    /// What they mean now.
    pub fn get(&self) -> Arc<T> {
        self.current.load_full()
    }
}

impl<T> Drop for Reloading<T> {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

fn read(paths: &[PathBuf]) -> Contents {
    let read_one = |path: &PathBuf| {
        let length = std::fs::metadata(path)?.len();
        if length > MAX_FILE_BYTES {
            return Err(io::Error::other(format!("it is larger than {MAX_FILE_BYTES} bytes")));
        }
        std::fs::read(path)
    };
    paths
        .iter()
        .map(|path| read_one(path).map_err(|error| Unreadable(format!("{}: {error}", path.display()))))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn number(contents: &Contents) -> Result<u32, String> {
        let bytes = contents[0].as_ref().map_err(ToString::to_string)?;
        String::from_utf8_lossy(bytes).trim().parse().map_err(|_| "expected a number".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_is_read_again_and_nonsense_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "1").unwrap();
        let reloading = Reloading::new("a number", vec![path.clone()], number, None).unwrap();
        let after = async |contents: Option<&str>| {
            match contents {
                Some(contents) => fs::write(&path, contents).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let mut got = *reloading.get();
            // Reading happens on another thread, which the paused clock does not wait for.
            for _ in 0..1000 {
                tokio::time::sleep(RELOAD_INTERVAL).await;
                std::thread::sleep(Duration::from_micros(100));
                got = *reloading.get();
            }
            got
        };
        assert_eq!(*reloading.get(), 1);
        assert_eq!(after(Some("2")).await, 2);
        assert_eq!(after(Some("two")).await, 2);
        assert_eq!(after(None).await, 2);
        assert_eq!(after(Some("3")).await, 3);
    }

    #[tokio::test]
    async fn without_files_there_is_a_fault_that_names_them_or_what_holds_until_then() {
        let path = vec![PathBuf::from("/nowhere/at-all")];
        let fault = Reloading::new("a number", path.clone(), number, None).err().unwrap();
        assert!(fault.contains("/nowhere/at-all"), "{fault}");
        assert_eq!(*Reloading::new("a number", path, number, Some(7)).unwrap().get(), 7);
    }
}
