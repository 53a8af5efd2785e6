//! The person's terminal: raw while a program far away has it, and as it was before, whatever happens.

use std::io::IsTerminal;

use bellows_proto::types::Window;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::failure::Failure;

/// A raw terminal; dropping it mends it.
pub struct Raw(Termios);

impl Raw {
    /// Every key goes to the program; nothing when standard input is no terminal.
    pub fn make() -> Result<Option<Self>, Failure> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let failed = |error| Failure::failed(format!("cannot set this terminal: {error}"));
        let before = tcgetattr(&stdin).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// The size of whichever standard stream is a terminal; 80 x 24 when none is.
pub fn window() -> Window {
    let sizes = [tcgetwinsize(std::io::stdout()), tcgetwinsize(std::io::stdin()), tcgetwinsize(std::io::stderr())];
    let size = sizes.into_iter().flatten().find(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or(Window { columns: 80, rows: 24 }, |size| Window {
        columns: size.ws_col.into(),
        rows: size.ws_row.into(),
    })
}
