//! The caller's side of the control socket (`docs/CONTROL.md`): blocking, a line at a time.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// An answer that is still under way after so long will not come: the server is asked again.
const SILENCE_MAX: Duration = Duration::from_secs(90);

/// A connection to the server of one run.
#[derive(Debug)]
pub(super) struct Control {
    reader: BufReader<UnixStream>,
}

impl Control {
    /// Connects and reads the server's first line. `None` while no server answers.
    pub(super) fn connect(path: &Path) -> Option<Self> {
        let stream = UnixStream::connect(path).ok()?;
        stream.set_read_timeout(Some(SILENCE_MAX)).ok()?;
        let mut control = Self { reader: BufReader::new(stream) };
        let hello = control.next().ok()??;
        (hello["event"] == "hello").then_some(control)
    }

    pub(super) fn ask(&mut self, request: &Value) -> std::io::Result<()> {
        self.reader.get_mut().write_all(format!("{request}\n").as_bytes())
    }

    /// The next line; `None` if the server is gone. Half a line of one that was killed is none.
    pub(super) fn next(&mut self) -> std::io::Result<Option<Value>> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(_) if !line.ends_with('\n') => Ok(None),
            Ok(_) => serde_json::from_str(&line).map(Some).map_err(std::io::Error::other),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn lines_come_whole_or_not_at_all() {
        let path = std::env::temp_dir().join(format!("tillwire-kill-control-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        assert!(Control::connect(&path).is_none(), "nobody listens");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"{\"event\":\"hello\"}\n").unwrap();
            let mut asked = String::new();
            BufReader::new(&stream).read_line(&mut asked).unwrap();
            stream.write_all(b"{\"event\":\"accepted\"}\n{\"event\":\"summ").unwrap();
            asked
        });
        let mut control = Control::connect(&path).unwrap();
        control.ask(&serde_json::json!({"do": "stats"})).unwrap();
        assert_eq!(server.join().unwrap(), "{\"do\":\"stats\"}\n");
        assert_eq!(control.next().unwrap().unwrap()["event"], "accepted");
        assert_eq!(control.next().unwrap(), None, "killed in the middle of a line");
        std::fs::remove_file(path).unwrap();
    }
}
