//! The command's words.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use super::{Disk, Failure, Options, run};

const HELP: &str = "\
Kills a server and its devices, again and again, while orders flow, and compares the ledgers with what was promised.

  --times N       kills (100)
  --devices N     devices, 1 to 16 (5)
  --pushers N     pushers at a time, 1 to 32 (8)
  --seed N        what is drawn comes from it (from the clock)
  --disk D        plain, full, or slow[=MS] (plain; slow is 200 ms)
  --volatile      a server without outbox
  --net N         use the addresses 127.N.x.y (177)
  --dir DIR       what the campaign writes; kept if something is wrong (a new one)
  --program PATH  the program `tillwire` (built by cargo, if that runs this)
  --patience S    seconds for what is left at the end (120)
  --json          the figures as one JSON object
";

/// The command `kill`.
pub fn main(words: impl Iterator<Item = String>) -> ExitCode {
    match read(words).and_then(|(options, json)| campaign(options, json)) {
        Ok(code) => code,
        Err(wrong) => {
            eprintln!("{wrong}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn campaign(options: Options, json: bool) -> Result<ExitCode, String> {
    let dir = options.dir.display().to_string();
    let told = |report: &super::Report| if json { report.json().to_string() } else { report.to_string() };
    match run(options) {
        Ok(report) => {
            println!("{}\nnothing lost, nothing twice, nothing out of its order", told(&report));
            Ok(ExitCode::SUCCESS)
        }
        Err(Failure::Skipped(why)) => {
            println!("skipped: {why}");
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            if let Failure::Broken { report, .. } = &failure {
                println!("{}", told(report));
            }
            println!("{failure}\n\nlogs, ledgers and the history are kept in {dir}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn read(mut words: impl Iterator<Item = String>) -> Result<(Options, bool), String> {
    let seed = std::process::id();
    let mut options = Options {
        dir: std::env::temp_dir().join(format!("tillwire-kill-{seed}")),
        seed: u64::from(seed),
        ..Options::default()
    };
    let mut json = false;
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => json = true,
            "--volatile" => options.volatile = true,
            name => {
                let value = words.next().ok_or_else(|| format!("{name} wants a value, or is unknown"))?;
                set(&mut options, name, &value)?;
            }
        }
    }
    if options.program.as_os_str().is_empty() {
        options.program = built()?;
    }
    Ok((options, json))
}

fn set(options: &mut Options, name: &str, value: &str) -> Result<(), String> {
    fn number<T: TryFrom<u64>>(name: &str, value: &str, from: u64, to: u64) -> Result<T, String> {
        let number = value.parse().ok().filter(|number| (from..=to).contains(number));
        number.and_then(|n| T::try_from(n).ok()).ok_or(format!("{name} is a number from {from} to {to}"))
    }
    match name {
        "--times" => options.times = number(name, value, 1, 1_000_000)?,
        "--devices" => options.devices = number(name, value, 1, 16)?,
        "--pushers" => options.pushers = number(name, value, 1, 32)?,
        "--seed" => options.seed = number(name, value, 0, u64::MAX)?,
        "--net" => options.net = number(name, value, 1, 254)?,
        "--patience" => options.patience = Duration::from_secs(number(name, value, 1, 86_400)?),
        "--dir" => options.dir = value.into(),
        "--program" => options.program = value.into(),
        "--disk" => options.disk = disk(value)?,
        _ => return Err(format!("{name} is unknown")),
    }
    Ok(())
}

fn disk(value: &str) -> Result<Disk, String> {
    match value.split_once('=') {
        None if value == "plain" => Ok(Disk::Plain),
        None if value == "full" => Ok(Disk::Full),
        None if value == "slow" => Ok(Disk::Slow(200)),
        Some(("slow", ms)) => ms.parse().map(Disk::Slow).map_err(|_| format!("{ms:?} is no number of ms")),
        _ => Err(format!("a disk is plain, full or slow[=MS], not {value:?}")),
    }
}

/// The program beside this one, made anew if cargo runs this.
fn built() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let program = own.with_file_name("tillwire");
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "-p", "tillwire-cli", "--bin", "tillwire"]);
        if own.parent().is_some_and(|dir| dir.ends_with("release")) {
            build.arg("--release");
        }
        let status = build.status().map_err(|error| format!("cannot build tillwire: {error}"))?;
        if !status.success() {
            return Err("tillwire does not build".into());
        }
    }
    if program.exists() {
        Ok(program)
    } else {
        Err(format!("{} is not there: give --program", program.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_options_or_a_reason() {
        let read = |text: &str| read(text.split_whitespace().map(str::to_owned));
        let (options, json) =
            read("--times 7 --disk slow=50 --program /bin/true --seed 9 --json --volatile").unwrap();
        assert_eq!((options.times, options.disk, options.seed, json), (7, Disk::Slow(50), 9, true));
        assert!(options.volatile && options.program.ends_with("true"));
        assert_eq!(read("--program x --disk full").unwrap().0.disk, Disk::Full);
        for wrong in ["--times 0", "--times", "--what 1", "--disk wet", "--devices 17", "--disk slow=x"] {
            assert!(read(&format!("--program x {wrong}")).is_err(), "{wrong}");
        }
    }
}
