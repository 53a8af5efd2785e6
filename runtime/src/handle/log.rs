//! Reading a container's log while its init writes it. The init (`init/init.rs`) writes two files in turn; each begins with a line of its own,
//!
//! ```text
//! #00000000000000000007 00000000000004194304      the 8th file, after 4 MiB of lines in the files before
//! ```
//! and is emptied before the next such line is written. So a place in the log is one number, the bytes of all lines before it; and who reads a
//! beginning, then lines, then the same beginning again knows that the lines are of that file, although nobody holds a lock. What was
//! emptied before it was read is counted, never skipped in silence.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::types::LogFiles;

/// `#`, 20 digits, a space, 20 digits, the end of the line; the other side is `init/init.rs`.
const HEADER_BYTES: usize = 43;
const DIGITS: usize = 20;

/// How often a reader that is overtaken tries again before it lets others run: each time the writer has filled a whole file meanwhile.
const OVERTAKEN: usize = 16;

/// A place in one container's log, and its files.
#[derive(Debug)]
pub struct LogReader {
    files: [Option<File>; 2],
    at: u64,
}

/// What one look found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogPart {
    /// Whole lines, as [`LogFiles`] describes them.
    pub lines: Vec<u8>,
    /// Bytes of lines before these that were overwritten before they were read.
    pub rotated_bytes: u64,
}

/// How one file begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    number: u64,
    start: u64,
}

impl LogReader {
    /// Begins at the place `at`: 0 is the first line ever written. The files stay readable when they are removed.
    pub fn open(files: &LogFiles, at: u64) -> io::Result<Self> {
        Ok(Self { files: [open(&files.older)?, open(&files.newer)?], at })
    }

    /// The place after everything read so far.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next whole lines, of at most `limit` bytes, which should be larger than any line (5 KiB). None when all there is has been read.
    pub fn read(&mut self, limit: usize) -> io::Result<LogPart> {
        let mut rotated_bytes = 0;
        for _ in 0..OVERTAKEN {
            let Some((file, header)) = file_at(&self.files, self.at)? else { break };
            if header.start > self.at {
                rotated_bytes += header.start - self.at;
                self.at = header.start;
            }
            let mut lines = vec![0; limit];
            let read = read_full(file, &mut lines, HEADER_BYTES as u64 + self.at - header.start)?;
            if read_header(file)? != Some(header) {
                continue; // emptied while it was read: what it gave may be anything
            }
            lines.truncate(read);
            lines.truncate(lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
            self.at += lines.len() as u64;
            return Ok(LogPart { lines, rotated_bytes });
        }
        Ok(LogPart { lines: Vec::new(), rotated_bytes })
    }
}

/// The file that has the line at this place; the oldest when the line is gone.
fn file_at(files: &[Option<File>; 2], at: u64) -> io::Result<Option<(&File, Header)>> {
    let mut found = Vec::new();
    for file in files.iter().flatten() {
        found.extend(read_header(file)?.map(|header| (file, header)));
    }
    found.sort_unstable_by_key(|(_, header)| header.number);
    let begun = found.iter().rev().find(|(_, header)| header.start <= at);
    Ok(begun.or(found.first()).copied())
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}

/// None while the file is empty or its beginning is being written.
fn read_header(file: &File) -> io::Result<Option<Header>> {
    let mut bytes = [0; HEADER_BYTES];
    let read = read_full(file, &mut bytes, 0)?;
    let number = |from: usize| std::str::from_utf8(bytes.get(from..from + DIGITS)?).ok()?.parse().ok();
    if read < HEADER_BYTES || bytes[0] != b'#' {
        return Ok(None);
    }
    Ok(number(1).zip(number(2 + DIGITS)).map(|(number, start)| Header { number, start }))
}

fn read_full(file: &File, to: &mut [u8], mut offset: u64) -> io::Result<usize> {
    let mut total = 0;
    while let Some(rest) = to.get_mut(total..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset) {
            Ok(0) => break,
            Ok(count) => {
                total += count;
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// The init's side, step by step as it does it.
    struct Writer {
        files: [File; 2],
        half: usize,
        number: u64,
        start: u64,
        written: usize,
    }

    impl Writer {
        fn write(&mut self, line: &str) {
            if self.written > 0 && self.written + line.len() > self.half {
                self.start += (self.written - HEADER_BYTES) as u64;
                self.number += 1;
                self.written = 0;
                self.files[(self.number % 2) as usize].set_len(0).expect("emptied");
            }
            let file = &mut self.files[(self.number % 2) as usize];
            if self.written == 0 {
                writeln!(file, "#{:020} {:020}", self.number, self.start).expect("written");
                self.written = HEADER_BYTES;
            }
            file.write_all(line.as_bytes()).expect("written");
            self.written += line.len();
        }
    }

    fn log(folder: &Path, half: usize) -> (Writer, LogFiles) {
        let paths: [PathBuf; 2] = ["out.0", "out.1"].map(|name| folder.join(name));
        let create = |path: &PathBuf| OpenOptions::new().append(true).create(true).open(path).expect("a file");
        let files = LogFiles { older: paths[1].clone(), newer: paths[0].clone(), rotations: 0, lost_bytes: 0 };
        (Writer { files: paths.each_ref().map(create), half, number: 0, start: 0, written: 0 }, files)
    }

    fn line(number: u32) -> String {
        format!("1 stdout F {number:09}\n")
    }

    fn numbers(lines: &[u8]) -> impl Iterator<Item = u32> {
        let text = String::from_utf8(lines.to_vec()).expect("text");
        text.lines().map(|line| line[11..].parse().expect("a number")).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn every_line_once_and_what_is_gone_is_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut writer, files) = log(folder.path(), 250);
        let mut reader = LogReader::open(&files, 0).expect("opened");
        assert_eq!(reader.read(4096).expect("read"), LogPart::default(), "nothing yet");
        let bytes = line(0).len() as u64;
        let mut next = 0;
        for step in [1_u32, 3, 9, 11, 2, 100, 1, 25, 1] {
            let begin = next;
            (0..step).for_each(|number| writer.write(&line(begin + number)));
            let end = begin + step;
            let mut gone = 0;
            loop {
                let part = reader.read(64).expect("read");
                gone += part.rotated_bytes;
                if part.lines.is_empty() {
                    break;
                }
                next += u32::try_from(part.rotated_bytes / bytes).expect("small");
                for number in numbers(&part.lines) {
                    assert_eq!(number, next);
                    next += 1;
                }
            }
            assert_eq!(next, end, "after {step}");
            assert_eq!(
                gone > 0,
                step > 18,
                "two files hold {} lines; {step} written, {gone} bytes gone",
                2 * (207 / bytes)
            );
            assert_eq!(reader.at(), u64::from(end) * bytes);
        }
    }

    #[test]
    fn a_place_is_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut writer, files) = log(folder.path(), 250);
        (0..14).for_each(|number| writer.write(&line(number)));
        let bytes = line(0).len() as u64;
        for (from, expected, gone) in [(0, 0, 0), (5, 5, 0), (9, 9, 0), (13, 13, 0)] {
            let part = LogReader::open(&files, from * bytes).expect("opened").read(4096).expect("read");
            assert_eq!((numbers(&part.lines).next(), part.rotated_bytes), (Some(expected), gone), "from {from}");
        }
        (14..40).for_each(|number| writer.write(&line(number)));
        let part = LogReader::open(&files, 3 * bytes).expect("opened").read(4096).expect("read");
        let first = numbers(&part.lines).next().expect("lines are kept");
        assert_eq!(part.rotated_bytes, (u64::from(first) - 3) * bytes);
    }

    /// Writer and reader on two threads: each line that comes is the next one, but for those counted as gone.
    #[test]
    fn no_lock_and_no_lie() {
        for (half, pause) in [(100, 0), (250, 0), (250, 40), (4096, 200), (20_000, 1000)] {
            race(half, pause);
        }
    }

    fn race(half: usize, pause: u32) {
        const LINES: u32 = 30_000;
        let folder = tempfile::tempdir().expect("a folder");
        let (mut writer, files) = log(folder.path(), half);
        let mut reader = LogReader::open(&files, 0).expect("opened");
        let done = AtomicBool::new(false);
        let bytes = line(0).len() as u64;
        let mut next = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..LINES).for_each(|number| writer.write(&line(number)));
                done.store(true, Ordering::Release);
            });
            loop {
                let over = done.load(Ordering::Acquire);
                let part = reader.read(512).expect("read");
                assert_eq!(part.rotated_bytes % bytes, 0);
                next += u32::try_from(part.rotated_bytes / bytes).expect("small");
                for number in numbers(&part.lines) {
                    assert_eq!(number, next, "half {half}, pause {pause}");
                    next += 1;
                }
                if over && part.lines.is_empty() {
                    break;
                }
                (0..pause).for_each(|_| std::hint::spin_loop());
            }
        });
        assert_eq!(next, LINES, "half {half}, pause {pause}");
    }
}
