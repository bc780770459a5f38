//! The arguments of `ps`, as far as they say what is shown. Which processes are shown is the container's business, so what selects some
//! (`-e`, `-A`, `a`, `x`) is understood and changes nothing.

use super::columns::{Column, SortKey};

/// A column and its title.
type Columns = Vec<(String, Column)>;

/// What is asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) columns: Columns,
    /// A line a thread, not a process.
    pub(super) threads: bool,
    /// The first decides; `true` for the greatest first.
    pub(super) sort: Vec<(SortKey, bool)>,
}

/// What is shown, of what, and in which order. An error is the first line that `ps` (procps) would write.
pub(super) fn parse(text: &str) -> Result<Asked, String> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let mut words = words.into_iter().peekable();
    let (mut own, mut sort) = (Columns::new(), Vec::new());
    let mut style = Style::default();
    while let Some(word) = words.next() {
        let (letters, sysv) = match word.strip_prefix('-') {
            Some(long) if long.starts_with('-') => {
                let (name, value) = match long[1..].split_once('=') {
                    Some((name, value)) => (name, Some(value)),
                    None if TAKES_VALUE.contains(&&long[1..]) => (&long[1..], words.next()),
                    None => (&long[1..], None),
                };
                read_long(name, value, &mut own, &mut sort)?;
                continue;
            }
            Some(letters) => (letters, true),
            None => (word, false),
        };
        for (at, letter) in letters.char_indices() {
            if letter == 'o' || (letter == 'O' && sysv) {
                let rest = &letters[at + 1..];
                let list = if rest.is_empty() { words.next() } else { Some(rest) };
                let missing = || "error: format specification must follow -o".to_owned();
                read_list(list.ok_or_else(missing)?, &mut own)?;
                break;
            }
            if letter == 'k' && !sysv {
                let rest = &letters[at + 1..];
                let list = if rest.is_empty() { words.next() } else { Some(rest) };
                sort.extend(read_sort(list.ok_or("error: long sort specification must follow 'k'")?)?);
                break;
            }
            let known = if sysv { style.take_sysv(letter) } else { style.take_bsd(letter) };
            if !known {
                let kind = if sysv { "unsupported SysV option" } else { "unsupported option (BSD syntax)" };
                return Err(format!("error: {kind}"));
            }
        }
    }
    let columns = if own.is_empty() { style.columns() } else { own };
    Ok(Asked { columns, threads: style.threads, sort })
}

/// The long options whose value may be the next word.
const TAKES_VALUE: [&str; 6] = ["format", "sort", "cols", "columns", "width", "rows"];

/// What the single letters ask for.
#[derive(Debug, Default)]
struct Style {
    full: bool,
    extra_full: bool,
    long: bool,
    jobs: bool,
    bsd: bool,
    user: bool,
    virtual_memory: bool,
    threads: bool,
    /// What `-L` and `-T` call the column of threads.
    thread_column: Option<&'static str>,
}

impl Style {
    fn take_sysv(&mut self, letter: char) -> bool {
        match letter {
            'e' | 'A' | 'a' | 'd' | 'w' | 'N' | 'y' | 'c' => {}
            'f' => self.full = true,
            'F' => self.extra_full = true,
            'l' => self.long = true,
            'j' => self.jobs = true,
            // `ps -aux` is `ps aux`, unless there is a user called x.
            'u' => self.user = true,
            'x' => {}
            'L' => self.show_threads("lwp"),
            'T' => self.show_threads("spid"),
            _ => return false,
        }
        true
    }

    fn take_bsd(&mut self, letter: char) -> bool {
        match letter {
            'a' | 'x' | 'w' | 'e' | 'r' | 'g' | 'c' | 'n' => {}
            'u' => self.user = true,
            'l' => self.long = true,
            'j' => self.jobs = true,
            'v' => self.virtual_memory = true,
            'H' => self.threads = true,
            'f' => {}
            _ => return false,
        }
        self.bsd = true;
        true
    }

    fn show_threads(&mut self, column: &'static str) {
        self.threads = true;
        self.thread_column = Some(column);
    }

    fn columns(&self) -> Columns {
        let names = match self {
            Self { user: true, .. } => "user pid %cpu %mem vsz rss tname stat start_time bsdtime args",
            Self { bsd: true, long: true, .. } => {
                "f uid pid ppid pri ni vsz rss wchan stat tname bsdtime args"
            }
            Self { bsd: true, jobs: true, .. } => "ppid pid pgid sid tname tpgid stat uid bsdtime args",
            Self { virtual_memory: true, .. } => "pid tname stat bsdtime maj_flt trs drs rss %mem args",
            Self { bsd: true, .. } => "pid tname stat bsdtime args",
            Self { extra_full: true, .. } => "uid_hack pid ppid c sz rss psr stime tname time cmd",
            Self { long: true, full: true, .. } => {
                "f s uid_hack pid ppid c opri ni addr_1 sz wchan stime tname time cmd"
            }
            Self { long: true, .. } => "f s uid pid ppid c opri ni addr_1 sz wchan tname time ucmd",
            Self { full: true, jobs: true, .. } => "uid_hack pid ppid pgid sid c stime tname time cmd",
            Self { jobs: true, .. } => "pid pgid sid tname time ucmd",
            Self { full: true, .. } => "uid_hack pid ppid c stime tname time cmd",
            _ => "pid tname time ucmd",
        };
        let known = |name| Column::find(name).expect("these are in the table");
        let mut names: Vec<&str> = names.split(' ').collect();
        if let Some(thread) = self.thread_column {
            add_threads(&mut names, thread);
        }
        names.into_iter().map(|name| (title_in_style(name, known(name)), known(name))).collect()
    }
}

/// Where `ps` puts the columns of threads: a `spid` behind the process, an `lwp` behind its parent, with their number in a full style.
fn add_threads(names: &mut Vec<&str>, thread: &'static str) {
    let after = |names: &[&str], those: &[&str]| {
        names.iter().rposition(|name| those.contains(name)).map_or(names.len(), |at| at + 1)
    };
    let is_lwp = thread == "lwp";
    let at = after(names, if is_lwp { &["pid", "ppid"] } else { &["pid"] });
    names.insert(at, thread);
    if is_lwp && names.contains(&"c") {
        let at = after(names, &["c"]);
        names.insert(at, "nlwp");
    }
}

/// The titles of the styles differ a little from those of the same columns by name.
fn title_in_style(name: &str, column: Column) -> String {
    match name {
        "args" => "COMMAND".to_owned(),
        "start_time" => "START".to_owned(),
        _ => column.title().to_owned(),
    }
}

fn read_long(
    name: &str,
    value: Option<&str>,
    into: &mut Columns,
    sort: &mut Vec<(SortKey, bool)>,
) -> Result<(), String> {
    match (name, value) {
        ("format", Some(list)) if !list.is_empty() => return read_list(list, into),
        ("sort", Some(keys)) if !keys.is_empty() => {
            sort.extend(read_sort(keys)?);
            return Ok(());
        }
        ("sort", _) => return Err("error: long sort specification must follow '--sort'".into()),
        // How wide it is shown is the client's business.
        ("cols" | "columns" | "width" | "rows", Some(_)) => return Ok(()),
        _ => {}
    }
    match name {
        "forest" | "headers" | "no-headers" | "cumulative" => Ok(()),
        _ => Err("error: unknown gnu long option".into()),
    }
}

/// Reads `-rss,+pid`.
fn read_sort(keys: &str) -> Result<Vec<(SortKey, bool)>, String> {
    let key = |text: &str| {
        let (down, name) = match text.strip_prefix('-') {
            Some(name) => (true, name),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let key = SortKey::find(name).ok_or_else(|| "error: unknown sort specifier".to_owned())?;
        Ok((key, down))
    };
    keys.split(',').map(key).collect()
}

/// Reads `pid,user=WHO`: a title takes the rest of the list.
fn read_list(list: &str, into: &mut Columns) -> Result<(), String> {
    let mut rest = list;
    while !rest.is_empty() {
        let end = rest.find([',', '=']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let column = Column::find(name)
            .ok_or_else(|| format!("error: unknown user-defined format specifier {name:?}"))?;
        match after.strip_prefix('=') {
            Some(title) => {
                into.push((title.to_owned(), column));
                return Ok(());
            }
            None => {
                into.push((column.title().to_owned(), column));
                rest = after.strip_prefix(',').unwrap_or_default();
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(arguments: &str) -> Result<String, String> {
        let asked = parse(arguments)?;
        Ok(asked.columns.into_iter().map(|(title, _)| title).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn titles_are_those_of_ps() {
        for (arguments, expected) in [
            ("-ef", "UID PID PPID C STIME TTY TIME CMD"),
            ("-e", "PID TTY TIME CMD"),
            ("aux", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
            ("ax", "PID TTY STAT TIME COMMAND"),
            ("-eF", "UID PID PPID C SZ RSS PSR STIME TTY TIME CMD"),
            ("-el", "F S UID PID PPID C PRI NI ADDR SZ WCHAN TTY TIME CMD"),
            ("-o pid,comm", "PID COMMAND"),
            ("-opid -o user", "PID USER"),
            ("-eo pid,cmd", "PID CMD"),
            ("o pid,args", "PID COMMAND"),
            ("--format=pid,rss", "PID RSS"),
            ("-o pid,etime=UP", "PID UP"),
            ("-eL", "PID LWP TTY TIME CMD"),
            ("-eLf", "UID PID PPID LWP C NLWP STIME TTY TIME CMD"),
            ("-eT", "PID SPID TTY TIME CMD"),
            ("-eTf", "UID PID SPID PPID C STIME TTY TIME CMD"),
            ("auxH --sort -rss", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
            ("-o pid,tid,spid,lwp --sort=pid", "PID TID SPID LWP"),
        ] {
            assert_eq!(titles(arguments).unwrap(), expected, "{arguments}");
        }
    }

    #[test]
    fn what_is_unknown_is_refused_as_by_ps() {
        for (arguments, said) in [
            ("-o foo", "error: unknown user-defined format specifier \"foo\""),
            ("-Q", "error: unsupported SysV option"),
            ("Q", "error: unsupported option (BSD syntax)"),
            ("--nonsense", "error: unknown gnu long option"),
            ("-o", "error: format specification must follow -o"),
            ("--sort foo", "error: unknown sort specifier"),
            ("--sort", "error: long sort specification must follow '--sort'"),
            ("axk", "error: long sort specification must follow 'k'"),
        ] {
            assert_eq!(titles(arguments).unwrap_err(), said, "{arguments}");
        }
    }
}
