//! Patterns of names as metadata calls send them: `%`, `_`, and `\` before a character that is meant itself.

/// Whether a name fits a pattern; no pattern fits all. Case counts.
pub(super) fn fits(name: &str, pattern: Option<&str>) -> bool {
    let Some(pattern) = pattern else { return true };
    let pattern = parse(pattern);
    // Which beginnings of the name fit the part of the pattern read so far. Linear in both lengths:
    // some clients send whole statements as patterns.
    let name: Vec<char> = name.chars().collect();
    let mut fitting = vec![false; name.len() + 1];
    fitting[0] = true;
    for part in pattern {
        match part {
            Part::Any => {
                for at in 0..name.len() {
                    fitting[at + 1] |= fitting[at];
                }
            }
            Part::One | Part::Same(_) => {
                for at in (0..name.len()).rev() {
                    fitting[at + 1] = fitting[at] && !matches!(part, Part::Same(c) if c != name[at]);
                }
                fitting[0] = false;
            }
        }
        if !fitting.contains(&true) {
            return false;
        }
    }
    fitting[name.len()]
}

#[derive(Clone, Copy)]
enum Part {
    Any,
    One,
    Same(char),
}

fn parse(pattern: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        parts.push(match character {
            '%' => Part::Any,
            '_' => Part::One,
            '\\' => Part::Same(characters.next().unwrap_or('\\')),
            other => Part::Same(other),
        });
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn patterns_fit_as_in_sql() {
        for (name, pattern) in [
            ("weather", "weather"),
            ("weather", "%"),
            ("weather", "w%r"),
            ("weather", "weath__"),
            ("a_b", "a\\_b"),
            ("", "%"),
            ("aXbXc", "%X%X%"),
        ] {
            assert!(fits(name, Some(pattern)), "{name} {pattern}");
        }
        for (name, pattern) in [
            ("weather", "Weather"),
            ("weather", "weath_"),
            ("weather", ""),
            ("aXb", "a\\_b"),
            ("weather", "select * from weather where a like '%x%'"),
        ] {
            assert!(!fits(name, Some(pattern)), "{name} {pattern}");
        }
        assert!(fits("anything", None));
    }
}
