//! As much HTTP as a check needs: the head of an answer, its status, its date. No encryption, no bodies.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How a check introduces itself.
pub(crate) const AGENT: &str = concat!("tillwire-doctor/", env!("CARGO_PKG_VERSION"));

/// Bytes of an answer's head that are looked at: what servers and proxies allow themselves.
pub(crate) const HEAD_BYTES_MAX: usize = 8 << 10;

/// Sends `HEAD / HTTP/1.0` and reads the answer's head.
pub(crate) async fn head(stream: &mut TcpStream, host: &str) -> io::Result<Vec<u8>> {
    let request = format!("HEAD / HTTP/1.0\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    read_head(stream).await
}

/// Reads up to the empty line, the end, or [`HEAD_BYTES_MAX`]; and no further than the first line if that cannot be
/// HTTP, which other protocols would never end.
pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut piece = [0; 1_024];
    while head.len() < HEAD_BYTES_MAX {
        let room = (HEAD_BYTES_MAX - head.len()).min(piece.len());
        let len = stream.read(&mut piece[..room]).await?;
        head.extend_from_slice(&piece[..len]);
        let begins = head.len().min(5);
        let ended =
            head.windows(4).any(|end| end == b"\r\n\r\n") || head.windows(2).any(|end| end == b"\n\n");
        if len == 0 || ended || head[..begins] != b"HTTP/"[..begins] {
            break;
        }
    }
    Ok(head)
}

/// The status of an answer, if it is one: `HTTP/1.1 200 OK`.
pub(crate) fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|&byte| byte == b'\n').next()?;
    let mut words = line.strip_prefix(b"HTTP/")?.split(|&byte| byte == b' ' || byte == b'\r');
    let version = words.next()?;
    if !matches!(version, [b'1', b'.', _] | [b'2'] | [b'2', b'.', b'0']) {
        return None;
    }
    let digits = words.find(|word| !word.is_empty())?;
    let text = core::str::from_utf8(digits).ok().filter(|text| text.len() == 3)?;
    text.parse().ok().filter(|status| (100..=599).contains(status))
}

/// The value of a field of the head.
pub(crate) fn field<'h>(head: &'h [u8], name: &str) -> Option<&'h str> {
    let text = core::str::from_utf8(head).ok()?;
    text.lines().skip(1).take_while(|line| !line.is_empty()).find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Seconds since 1970 of a date as HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(crate) fn date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.split_once(", ")?;
    let words: Vec<&str> = rest.split_ascii_whitespace().collect();
    let [day, month, year, time, "GMT"] = words[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)?;
    let number = |text: &str, below: i64| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i64>().ok().filter(|&number| digits && number < below)
    };
    let (day, year) = (number(day, 32).filter(|&day| day > 0)?, number(year, 10_000)?);
    let mut clock = time.split(':');
    let (hour, minute, second) =
        (number(clock.next()?, 24)?, number(clock.next()?, 60)?, number(clock.next()?, 61)?);
    if clock.next().is_some() {
        return None;
    }
    let days = days_from_1970(year, i64::try_from(month).ok()? + 1, day);
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days of the Gregorian calendar since 1970-01-01; years begin in March, so that the leap day is the last one.
fn days_from_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines() {
        for (head, expected) in [
            ("HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.0 407 Proxy Authentication Required\r\nX: y\r\n\r\n", Some(407)),
            ("HTTP/1.1 204", Some(204)),
            ("HTTP/1.1  301 \n", Some(301)),
            ("HTTP/1.1 20 OK", None),
            ("HTTP/1.1 0200 OK", None),
            ("HTTP/1.1 999 OK", None),
            ("HTTP/9 200 OK", None),
            ("SSH-2.0-OpenSSH_9.2", None),
            ("", None),
        ] {
            assert_eq!(status(head.as_bytes()), expected, "{head:?}");
        }
    }

    #[test]
    fn fields_and_dates() {
        let head = b"HTTP/1.1 200 OK\r\nServer: x\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nDate: body";
        assert_eq!(date(field(head, "Date").unwrap()), Some(784_111_777));
        assert_eq!(field(head, "Body"), None);
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Thu, 29 Feb 2024 12:00:00 GMT", Some(1_709_208_000)),
            ("Fri, 01 Mar 2024 00:00:00 GMT", Some(1_709_251_200)),
            ("Sun, 22 Nov 2026 07:31:16 GMT", Some(1_795_332_676)),
            ("Sun, 22 Nov 2026 07:31 GMT", None),
            ("Sun, 22 Nov 2026 25:31:00 GMT", None),
            ("Sun, +2 Nov 2026 07:31:16 GMT", None),
            ("Sun, 22 Nov 2026 07:31:16 CET", None),
            ("Sunday", None),
        ] {
            assert_eq!(date(text), seconds, "{text}");
        }
    }

    async fn read(bytes: &[u8]) -> usize {
        read_head(&mut &bytes[..]).await.unwrap().len()
    }

    #[tokio::test]
    async fn a_head_at_its_limit_and_one_past_it() {
        let endless = |len: usize| [b"HTTP/1.1 200 OK\r\n".to_vec(), vec![b'x'; len - 17]].concat();
        assert_eq!(read(&endless(HEAD_BYTES_MAX)).await, HEAD_BYTES_MAX);
        assert_eq!(read(&endless(HEAD_BYTES_MAX + 1)).await, HEAD_BYTES_MAX);
        assert_eq!(read(b"HTTP/1.1 200 OK\r\n\r\n").await, 19);
        assert_eq!(read(&[b"SSH-2.0-x\r\n".to_vec(), vec![b'x'; 5_000]].concat()).await, 1_024);
        assert_eq!(read(b"").await, 0);
    }
}
