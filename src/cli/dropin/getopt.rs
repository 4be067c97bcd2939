//! Command lines of other programs, read as `getopt_long(3)` reads them: short options may stand in a
//! cluster, a value may follow at once, after `=` or as the next word, a long name may be cut short as
//! long as it stays unmistakable, and `--` ends the options.

/// One option.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opt {
    /// Its long name, by which the reader knows it.
    pub(super) long: &'static str,
    /// Its letter, if it has one.
    pub(super) short: Option<char>,
    /// Whether it takes a value.
    pub(super) value: bool,
}

/// An option without a value.
pub(super) const fn flag(long: &'static str, short: Option<char>) -> Opt {
    Opt { long, short, value: false }
}

/// An option with one.
pub(super) const fn value(long: &'static str, short: Option<char>) -> Opt {
    Opt { long, short, value: true }
}

/// Where operands may stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operands {
    /// Anywhere.
    Anywhere,
    /// The first one ends the options: what follows is a command's.
    Last,
}

/// What was read, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Line {
    /// Options by their long names, with their values.
    pub(super) options: Vec<(&'static str, String)>,
    /// The rest.
    pub(super) operands: Vec<String>,
}

/// Reads a command line, without the program's name. The error is what `getopt_long` would print.
pub(super) fn read(words: &[String], known: &[Opt], operands: Operands) -> Result<Line, String> {
    let mut line = Line::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            line.operands.extend(words.cloned());
            break;
        }
        if let Some(long) = word.strip_prefix("--") {
            let (name, given) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let opt = find_long(known, name)?;
            let value = match (opt.value, given) {
                (false, None) => String::new(),
                (false, Some(_)) => {
                    return Err(format!("option '--{}' doesn't allow an argument", opt.long));
                }
                (true, Some(value)) => value,
                (true, None) => next(&mut words, &format!("option '--{}'", opt.long))?,
            };
            line.options.push((opt.long, value));
        } else if word.len() > 1 && word.starts_with('-') {
            cluster(&word[1..], known, &mut words, &mut line)?;
        } else {
            line.operands.push(word.clone());
            if operands == Operands::Last {
                line.operands.extend(words.cloned());
                break;
            }
        }
    }
    Ok(line)
}

/// Short options in one word; the first that takes a value takes the rest of the word.
fn cluster(
    letters: &str,
    known: &[Opt],
    words: &mut std::slice::Iter<'_, String>,
    line: &mut Line,
) -> Result<(), String> {
    for (at, letter) in letters.char_indices() {
        let opt = known.iter().find(|opt| opt.short == Some(letter));
        let opt = opt.ok_or_else(|| format!("invalid option -- '{letter}'"))?;
        if !opt.value {
            line.options.push((opt.long, String::new()));
            continue;
        }
        let rest = &letters[at + letter.len_utf8()..];
        let value = if rest.is_empty() {
            next(words, &format!("option -- '{letter}'"))?
        } else {
            rest.to_owned()
        };
        line.options.push((opt.long, value));
        break;
    }
    Ok(())
}

fn find_long<'a>(known: &'a [Opt], name: &str) -> Result<&'a Opt, String> {
    if let Some(opt) = known.iter().find(|opt| opt.long == name) {
        return Ok(opt);
    }
    let mut begun = known.iter().filter(|opt| !name.is_empty() && opt.long.starts_with(name));
    match (begun.next(), begun.next()) {
        (Some(opt), None) => Ok(opt),
        (Some(_), Some(_)) => Err(format!("option '--{name}' is ambiguous")),
        (None, _) => Err(format!("unrecognized option '--{name}'")),
    }
}

fn next(words: &mut std::slice::Iter<'_, String>, option: &str) -> Result<String, String> {
    words.next().cloned().ok_or_else(|| match option.strip_prefix("option -- ") {
        Some(letter) => format!("option requires an argument -- {letter}"),
        None => format!("{option} requires an argument"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Opt] = &[
        flag("configure", Some('c')),
        flag("config-net", None),
        value("mtu", Some('m')),
        value("mtu-max", None),
        flag("ipv6", Some('6')),
    ];

    fn line(words: &[&str], operands: Operands) -> Result<Line, String> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        read(&words, KNOWN, operands)
    }

    #[test]
    fn every_way_to_write_an_option_is_understood() {
        let expected = [("configure", ""), ("mtu", "9")].map(|(k, v)| (k, v.to_owned()));
        for words in [
            &["-c", "-m", "9"][..],
            &["-cm9"],
            &["-cm", "9"],
            &["--configure", "--mtu=9"],
            &["--configu", "--mtu", "9"],
        ] {
            assert_eq!(line(words, Operands::Anywhere).unwrap().options, expected, "{words:?}");
        }
    }

    #[test]
    fn operands_stand_anywhere_or_end_the_options() {
        let words = ["7", "-6", "tap0", "--", "-c"];
        let anywhere = line(&words, Operands::Anywhere).unwrap();
        assert_eq!(anywhere.operands, ["7", "tap0", "-c"]);
        assert_eq!(anywhere.options.len(), 1);
        let last = line(&["-6", "sh", "-c", "-"], Operands::Last).unwrap();
        assert_eq!(last.operands, ["sh", "-c", "-"]);
        assert_eq!(last.options.len(), 1);
    }

    #[test]
    fn what_is_wrong_is_said_in_getopt_s_words() {
        for (words, said) in [
            (&["--bogus"][..], "unrecognized option '--bogus'"),
            (&["--con"], "option '--con' is ambiguous"),
            (&["-x"], "invalid option -- 'x'"),
            (&["-m"], "option requires an argument -- 'm'"),
            (&["--mtu"], "option '--mtu' requires an argument"),
            (&["--ipv6=1"], "option '--ipv6' doesn't allow an argument"),
        ] {
            assert_eq!(line(words, Operands::Anywhere).unwrap_err(), said, "{words:?}");
        }
    }
}
