//! Whether a text is a regular expression of RE2, which is what Istio compares by.
//!
//! Syntax alone, in one pass: nothing is compiled, so that a file full of expressions costs what its length costs.

use super::Verdict;

/// The longest expression, in bytes (Istio's bound).
const MAX: usize = 1024;
/// How often anything may be repeated, counted through nested repetitions (RE2's bound).
const MAX_REPEAT: u32 = 1000;
const CLASSES: &[&str] = &[
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];

/// RE2's syntax, at most 1024 bytes.
pub(crate) fn re2(text: &str) -> Verdict {
    if text.is_empty() {
        return Err("a regular expression cannot be empty".to_owned());
    }
    if text.len() > MAX {
        return Err(format!("a regular expression has at most {MAX} bytes"));
    }
    let mut reader = Reader {
        rest: text,
        names: Vec::new(),
        groups: Vec::new(),
        level: Level::default(),
    };
    reader
        .all()
        .map_err(|why| format!("`{text}` is not a regular expression of RE2: {why}"))
}

struct Reader<'t> {
    rest: &'t str,
    names: Vec<&'t str>,
    /// The levels around this one.
    groups: Vec<Level>,
    level: Level,
}

/// One level of parentheses.
#[derive(Clone, Copy, Default)]
struct Level {
    /// What a repetition may follow: how often that repeats inside.
    last: Option<u32>,
    /// Whether a repetition came just before.
    repeated: bool,
    /// The largest repetition on the level.
    most: u32,
}

type Step = Result<(), &'static str>;

impl<'t> Reader<'t> {
    fn all(&mut self) -> Step {
        while let Some(c) = self.next() {
            match c {
                '(' => self.open()?,
                ')' => self.close()?,
                '|' => {
                    self.level.last = None;
                    self.level.repeated = false;
                }
                '[' => {
                    self.class()?;
                    self.one();
                }
                '*' => self.repeat(1)?,
                '+' => self.repeat(1)?,
                '?' => self.repeat(1)?,
                '{' => match self.count()? {
                    Some(most) => self.repeat(most)?,
                    None => self.one(),
                },
                '\\' => {
                    self.escape(false)?;
                    self.one();
                }
                _ => self.one(),
            }
        }
        if self.groups.is_empty() {
            return Ok(());
        }
        Err("a `(` is not closed")
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = self.rest.strip_prefix(c)?;
        Some(c)
    }

    fn eat(&mut self, what: &str) -> bool {
        match self.rest.strip_prefix(what) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// One thing was read that may be repeated.
    fn one(&mut self) {
        self.level.last = Some(1);
        self.level.repeated = false;
        self.level.most = self.level.most.max(1);
    }

    fn repeat(&mut self, most: u32) -> Step {
        let Some(inside) = self.level.last else {
            return Err("nothing stands before a repetition");
        };
        if self.level.repeated {
            return Err("a repetition follows a repetition");
        }
        self.eat("?");
        let total = inside.saturating_mul(most.max(1));
        if total > MAX_REPEAT {
            return Err("something is repeated more than 1000 times");
        }
        self.level.last = Some(total);
        self.level.most = self.level.most.max(total);
        self.level.repeated = true;
        Ok(())
    }

    /// What follows a `{`, if it is a repetition; else the `{` stands for itself.
    fn count(&mut self) -> Result<Option<u32>, &'static str> {
        let Some((inside, rest)) = self.rest.split_once('}') else {
            return Ok(None);
        };
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let (least, most) = match inside.split_once(',') {
            Some((least, most)) if digits(least) && (most.is_empty() || digits(most)) => (least, most),
            None if digits(inside) => (inside, inside),
            _ => return Ok(None),
        };
        self.rest = rest;
        let read = |text: &str| text.parse::<u32>().ok().filter(|n| *n <= MAX_REPEAT);
        let bad = "a count of repetitions is over 1000 or upside down";
        let least = read(least).ok_or(bad)?;
        if most.is_empty() {
            return Ok(Some(least));
        }
        read(most).filter(|most| *most >= least).ok_or(bad).map(Some)
    }

    fn open(&mut self) -> Step {
        if self.eat("?") {
            let named = self.eat("P<") || self.eat("<");
            if named {
                let (name, rest) = self
                    .rest
                    .split_once('>')
                    .ok_or("the name of a group is not closed")?;
                let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
                if name.is_empty() || !name.chars().all(word) {
                    return Err("the name of a group is no word");
                }
                if self.names.contains(&name) {
                    return Err("two groups have the same name");
                }
                self.names.push(name);
                self.rest = rest;
            } else if self.flags()? {
                return Ok(());
            }
        }
        self.groups.push(self.level);
        self.level = Level::default();
        Ok(())
    }

    /// Flags behind `(?`; whether they end in `)` and open no group.
    fn flags(&mut self) -> Result<bool, &'static str> {
        let (mut negative, mut any) = (false, false);
        while let Some(c) = self.next() {
            match c {
                'i' | 'm' | 's' | 'U' => any = true,
                '-' if !negative => {
                    (negative, any) = (true, false);
                }
                ':' | ')' if negative && !any => return Err("flags are missing behind a `-`"),
                ':' => return Ok(false),
                ')' => return Ok(true),
                _ => break,
            }
        }
        Err("`(?` opens what RE2 does not know (it looks neither ahead nor behind)")
    }

    fn close(&mut self) -> Step {
        let Some(around) = self.groups.pop() else {
            return Err("a `)` is not opened");
        };
        let inside = self.level.most.max(1);
        self.level = Level {
            last: Some(inside),
            repeated: false,
            most: around.most.max(inside),
        };
        Ok(())
    }

    /// What follows a `[`.
    fn class(&mut self) -> Step {
        self.eat("^");
        let mut first = true;
        loop {
            if self.rest.is_empty() {
                return Err("a `[` is not closed");
            }
            if !first && self.eat("]") {
                return Ok(());
            }
            first = false;
            if let Some(rest) = self.rest.strip_prefix("[:")
                && let Some((name, rest)) = rest.split_once(":]")
            {
                if !CLASSES.contains(&name.strip_prefix('^').unwrap_or(name)) {
                    return Err("a class of characters is not known");
                }
                self.rest = rest;
                continue;
            }
            let Some(low) = self.member()? else { continue };
            let range = self
                .rest
                .strip_prefix('-')
                .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(']'));
            if range {
                self.eat("-");
                match self.member()? {
                    Some(high) if low <= high => {}
                    _ => return Err("a range of characters is upside down"),
                }
            }
        }
    }

    /// A character of a class; `None` for a class such as `\d`.
    fn member(&mut self) -> Result<Option<char>, &'static str> {
        match self.next() {
            Some('\\') => self.escape(true),
            Some(c) => Ok(Some(c)),
            None => Err("a `[` is not closed"),
        }
    }

    /// What follows a `\`: the character that it stands for, where it stands for one.
    fn escape(&mut self, in_class: bool) -> Result<Option<char>, &'static str> {
        let Some(c) = self.next() else {
            return Err("it ends in a `\\`");
        };
        match c {
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => Ok(None),
            'p' | 'P' => self.unicode(),
            'A' | 'b' | 'B' | 'z' if !in_class => Ok(None),
            'Q' if !in_class => {
                self.rest = self.rest.split_once("\\E").map_or("", |(_, rest)| rest);
                Ok(None)
            }
            'E' if !in_class => Ok(None),
            'a' => Ok(Some('\u{7}')),
            'f' => Ok(Some('\u{c}')),
            'n' => Ok(Some('\n')),
            'r' => Ok(Some('\r')),
            't' => Ok(Some('\t')),
            'v' => Ok(Some('\u{b}')),
            'x' => self.hexadecimal().map(Some),
            '0'..='7' => self.octal(c).map(Some),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => Ok(Some(c)),
            _ => Err("a letter behind `\\` has no meaning"),
        }
    }

    fn unicode(&mut self) -> Result<Option<char>, &'static str> {
        let bad = "a class of Unicode is not known";
        let one = self.next().ok_or(bad)?;
        if one != '{' {
            return "LMNPSZC".contains(one).then_some(None).ok_or(bad);
        }
        let (name, rest) = self.rest.split_once('}').ok_or(bad)?;
        let name = name.strip_prefix('^').unwrap_or(name);
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_') {
            return Err(bad);
        }
        self.rest = rest;
        Ok(None)
    }

    fn hexadecimal(&mut self) -> Result<char, &'static str> {
        let bad = "`\\x` is not followed by the number of a character";
        let digits = if self.eat("{") {
            let (digits, rest) = self.rest.split_once('}').ok_or(bad)?;
            self.rest = rest;
            digits
        } else {
            let (digits, rest) = self.rest.split_at_checked(2).ok_or(bad)?;
            self.rest = rest;
            digits
        };
        let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
        let number = u32::from_str_radix(digits, 16).ok().filter(|_| plain);
        number.and_then(char::from_u32).ok_or(bad)
    }

    /// `\0`, `\012`; `\1` alone would refer to a group, which RE2 cannot.
    fn octal(&mut self, first: char) -> Result<char, &'static str> {
        let more = self
            .rest
            .bytes()
            .take(2)
            .take_while(|b| (b'0'..=b'7').contains(b))
            .count();
        if first != '0' && more == 0 {
            return Err("RE2 cannot refer back to a group");
        }
        let (digits, rest) = self.rest.split_at_checked(more).unwrap_or(("", self.rest));
        self.rest = rest;
        let number = u32::from_str_radix(&format!("{first}{digits}"), 8).ok();
        number
            .and_then(char::from_u32)
            .ok_or("an octal number is too large")
    }
}

#[cfg(test)]
mod tests {
    use super::re2;

    #[test]
    fn what_re2_reads_is_read() {
        let fine = [
            "a",
            ".*",
            "a|b|",
            "(a|b)*?",
            "(?i)x",
            "(?i:x)",
            "(?P<n>a)(?<m>b)",
            "[^]a]",
            "[a-z-]",
            "[[:alpha:]\\d]",
            "a{2}",
            "a{2,}",
            "a{2,3}?",
            "{",
            "a{,5}",
            "a{x}",
            "x{",
            "\\Qa(b\\E+",
            "\\x41\\x{1F600}",
            "\\pL\\p{Greek}",
            "^*",
            "(a{30}){30}",
            "[\\]]",
            "\\.\\/",
            "()",
            "(?-s).",
            "\\012",
            "[[]",
            "^/api/v[0-9]+(/.*)?$",
        ];
        for text in fine {
            assert_eq!(re2(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_re2_does_not_read_is_told() {
        let wrong = [
            "",
            "*",
            "+a",
            "a**",
            "a|*",
            "(",
            ")",
            "[",
            "[z-a]",
            "[]",
            "[^]",
            "(?=a)",
            "(?!a)",
            "(?<=a)",
            "(?P<>a)",
            "(?<n>a)(?<n>b)",
            "\\1",
            "a{1001}",
            "a{3,2}",
            "(a{500}){3}",
            "\\",
            "\\y",
            "[[:foo:]]",
            "\\xZZ",
            "(?x)a",
            "\\p{",
            "[a-\\d]",
            "(*a)",
            "\\C",
            "(?)*",
            "[a",
        ];
        for text in wrong {
            assert!(re2(text).is_err(), "{text}");
        }
        assert!(re2(&"a".repeat(1025)).is_err());
    }
}
