// SPDX-License-Identifier: MIT OR Apache-2.0
//! Passphrases come from a terminal, a file or a systemd credential; never from arguments or the environment.

use std::{
    env,
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::OFlag,
    sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr},
};
use pqvpn_crypto::keystore::Passphrase;
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Name of the systemd credential (`LoadCredential=` in the unit).
const CREDENTIAL: &str = "pqvpn-passphrase";
/// Longest passphrase in bytes.
const LIMIT: usize = 1024;
/// Longest code or secret in bytes, as long as the longest code with a line end after each word.
const SECRET_LIMIT: usize = 4096;

/// The passphrase of something that exists and is encrypted.
///
/// `option` is the one that names the file. Tried in this order: the file, the systemd credential, a question on the terminal.
///
/// # Errors
/// There is no source, or it cannot be read.
pub(crate) fn existing(file: Option<&Path>, of_what: (&str, &str)) -> Result<Passphrase, Failure> {
    existing_bytes(file, of_what).map(passphrase)
}

/// As [`existing`], as bytes to be handed to the daemon in the background.
///
/// # Errors
/// As [`existing`].
pub(crate) fn existing_bytes(
    file: Option<&Path>,
    (option, of_what): (&str, &str),
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if let Some(given) = given_bytes(file)? {
        return Ok(given);
    }
    ask(&format!("Passphrase of {of_what}: "))?.ok_or_else(|| no_source(option, of_what))
}

/// A passphrase to be set: asked twice on a terminal, and never empty.
///
/// # Errors
/// There is no source, it cannot be read, it is empty, or the two differ.
pub(crate) fn new(file: Option<&Path>, (option, of_what): (&str, &str)) -> Result<Passphrase, Failure> {
    if let Some(path) = file {
        return not_empty(passphrase(from_file(path)?));
    }
    let Some(first) = ask(&format!("New passphrase of {of_what}: "))? else {
        return Err(no_source(option, of_what));
    };
    let again = ask("The same again: ")?;
    if again.as_deref() != Some(&*first) {
        return Err(Failure::failed("passphrase", "nothing was changed", "the two passphrases differ", "once more"));
    }
    not_empty(passphrase(first))
}

/// The passphrase from a file or credential, when there is one.
///
/// # Errors
/// The file cannot be read or others can read it.
pub(crate) fn given(file: Option<&Path>) -> Result<Option<Passphrase>, Failure> {
    Ok(given_bytes(file)?.map(passphrase))
}

/// Another secret than a passphrase from standard input: text of one line or several, blanks at its ends left out.
///
/// # Errors
/// It cannot be read, is empty, too long or no text.
pub(crate) fn secret_from_stdin(what: &str, of_what: &str) -> Result<Zeroizing<String>, Failure> {
    let wrong = |why: String| Failure::usage("usage", what, why, format!("give {of_what} on standard input, as it is"));
    let stdin = io::stdin();
    let bytes = if stdin.is_terminal() {
        ask_up_to(&format!("Paste {of_what}: "), SECRET_LIMIT)?.unwrap_or_default()
    } else {
        read_all(stdin.lock(), SECRET_LIMIT).map_err(|error| wrong(format!("standard input: {error}")))?
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("standard input is no text".to_owned()))?.trim();
    if text.is_empty() {
        Err(wrong("standard input was empty".to_owned()))
    } else {
        Ok(Zeroizing::new(text.to_owned()))
    }
}

/// As [`given`], as bytes to be handed to the daemon.
///
/// # Errors
/// As [`given`].
pub(crate) fn given_bytes(file: Option<&Path>) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    match file.map(Path::to_owned).or_else(credential) {
        Some(path) => from_file(&path).map(Some),
        None => Ok(None),
    }
}

fn credential() -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os("CREDENTIALS_DIRECTORY")?).join(CREDENTIAL);
    path.exists().then_some(path)
}

fn from_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let bytes = if path == Path::new("-") {
        read_all(io::stdin().lock(), LIMIT)
    } else {
        open(path).and_then(|file| read_all(file, LIMIT))
    };
    bytes.map_err(|error| {
        let failure = Failure::file("no passphrase", path, &error);
        Failure { hint: "name a file only you can read (mode 0600)".into(), ..failure }
    })
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_CLOEXEC.bits()).open(path)?;
    let meta = file.metadata()?;
    // Pipes (`/dev/fd/3`) have no readers but us; a credential belongs to the service alone.
    if meta.is_file() && meta.mode() & 0o077 != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others can read it"));
    }
    Ok(file)
}

/// Everything up to the limit, without the line end a text editor leaves.
fn read_all(reader: impl Read, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
    reader.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::other(format!("longer than {limit} bytes")));
    }
    for end in [b'\n', b'\r'] {
        if bytes.last() == Some(&end) {
            bytes.pop();
        }
    }
    Ok(bytes)
}

/// Asks on the terminal; none when standard input is no terminal.
fn ask(prompt: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    ask_up_to(prompt, LIMIT)
}

fn ask_up_to(prompt: &str, limit: usize) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Ok(None);
    }
    let read = || {
        write!(io::stderr(), "{prompt}")?;
        let _silent = Silence::begin()?;
        let line = read_line(&stdin, limit);
        let _gone = writeln!(io::stderr());
        line
    };
    read().map(Some).map_err(|error| Failure::failed("passphrase", "no passphrase", error, "give a passphrase file"))
}

/// Reads one line byte by byte: a buffered reader would keep a copy nobody wipes.
fn read_line(stdin: &io::Stdin, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(limit));
    let mut byte = Zeroizing::new([0]);
    while nix::unistd::read(stdin, &mut *byte)? == 1 && byte[0] != b'\n' {
        if line.len() == limit {
            return Err(io::Error::other(format!("longer than {limit} bytes")));
        }
        line.push(byte[0]);
    }
    Ok(line)
}

/// The terminal does not echo while this lives.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        silent.local_flags.remove(LocalFlags::ECHONL);
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _gone = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// Moves the bytes into the type that wipes them.
fn passphrase(mut bytes: Zeroizing<Vec<u8>>) -> Passphrase {
    Passphrase::new(std::mem::take(&mut *bytes))
}

fn not_empty(passphrase: Passphrase) -> Result<Passphrase, Failure> {
    if passphrase.is_empty() {
        return Err(Failure::usage(
            "passphrase",
            "nothing was changed",
            "an empty passphrase protects nothing",
            "`pqvpn keys passphrase --remove` keeps the key without one",
        ));
    }
    Ok(passphrase)
}

fn no_source(option: &str, of_what: &str) -> Failure {
    Failure::refused(
        "passphrase",
        "no passphrase",
        format!("{of_what} takes one, and standard input is no terminal to ask on"),
        format!("run in a terminal, or give a file with the passphrase: `{option} FILE`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_not_part_of_the_passphrase() {
        for (file, passphrase) in [("a b \n", "a b "), ("a\r\n", "a"), ("a\n\n", "a\n"), ("", "")] {
            assert_eq!(read_all(file.as_bytes(), LIMIT).unwrap().as_slice(), passphrase.as_bytes());
        }
    }

    #[test]
    fn an_absurdly_long_passphrase_is_refused() {
        assert!(read_all(&[b'x'; LIMIT + 1][..], LIMIT).is_err());
        assert_eq!(read_all(&[b'x'; LIMIT][..], LIMIT).unwrap().len(), LIMIT);
    }
}
