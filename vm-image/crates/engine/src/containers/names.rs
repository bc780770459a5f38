//! Names: what may be one, and one for those who gave none.

use rand::seq::IndexedRandom;

use crate::error::ApiError;

const ADJECTIVES: &[&str] = &[
    "agile", "amber", "ample", "azure", "bold", "brave", "breezy", "bright", "brisk", "calm", "candid",
    "careful", "cheerful", "clever", "cordial", "cosy", "crisp", "curious", "daring", "deft", "diligent",
    "eager", "earnest", "easy", "elegant", "fair", "fearless", "fluent", "focused", "fond", "frank",
    "friendly", "gentle", "gifted", "glad", "golden", "graceful", "grand", "happy", "hardy", "hearty",
    "honest", "hopeful", "humble", "jolly", "jovial", "keen", "kind", "lively", "loyal", "lucid", "lucky",
    "mellow", "merry", "mindful", "modest", "neat", "nimble", "noble", "patient", "peaceful", "placid",
    "playful", "polite", "proud", "quick", "quiet", "ready", "robust", "rustic", "serene", "sharp", "silent",
    "sincere", "smart", "snug", "sober", "solid", "steady", "stoic", "sturdy", "subtle", "sunny", "swift",
    "tender", "thrifty", "tidy", "tranquil", "trusty", "upbeat", "vigilant", "vivid", "warm", "wise",
    "witty", "zealous", "zesty",
];

/// People who worked under water, with water, or on what holds it.
const PEOPLE: &[&str] = &[
    "archimedes",
    "ballard",
    "barton",
    "beebe",
    "bernoulli",
    "bert",
    "bond",
    "boyle",
    "brunel",
    "bushnell",
    "carson",
    "cayley",
    "cochrane",
    "cousteau",
    "cunningham",
    "darcy",
    "deane",
    "denayrouze",
    "drebbel",
    "dumas",
    "eads",
    "earle",
    "euler",
    "fleuss",
    "fourneyron",
    "francis",
    "froude",
    "fulton",
    "gagnan",
    "goddard",
    "haldane",
    "halley",
    "heyerdahl",
    "holland",
    "kaplan",
    "kemp",
    "kitcher",
    "lake",
    "lambert",
    "lamarr",
    "leupold",
    "link",
    "lovelace",
    "marsigli",
    "maury",
    "mayol",
    "momsen",
    "navier",
    "noether",
    "pascal",
    "pelton",
    "peress",
    "piccard",
    "pitot",
    "poiseuille",
    "prandtl",
    "reynolds",
    "roebling",
    "rouquayrol",
    "savery",
    "siebe",
    "smeaton",
    "stevin",
    "stokes",
    "tailliez",
    "tharp",
    "thomson",
    "torricelli",
    "triger",
    "vitruvius",
    "walsh",
    "watt",
    "yonge",
];

/// A random name that `is_free`: an adjective and a person, with a digit when that was taken.
pub(crate) fn random(is_free: impl Fn(&str) -> bool) -> String {
    let mut rng = rand::rng();
    let mut pick = || {
        let adjective = ADJECTIVES.choose(&mut rng).expect("the list is not empty");
        let person = PEOPLE.choose(&mut rng).expect("the list is not empty");
        format!("{adjective}_{person}")
    };
    let name = pick();
    if is_free(&name) {
        return name;
    }
    let mut number = 0u64;
    loop {
        let name = format!("{}{}", pick(), number % 10);
        if is_free(&name) {
            return name;
        }
        number += 1;
        if number > 1000 && is_free(&format!("{name}{number}")) {
            return format!("{name}{number}");
        }
    }
}

/// The name without its slash, if it may be one.
pub(crate) fn check(asked: &str) -> Result<String, ApiError> {
    let name = asked.strip_prefix('/').unwrap_or(asked);
    let mut letters = name.bytes();
    let good = letters.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.len() > 1
        && letters.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if good {
        return Ok(name.to_owned());
    }
    Err(ApiError::invalid(format!(
        "Invalid container name ({asked}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_taken_name_gets_a_digit() {
        let tries = Cell::new(0);
        let name = random(|_| tries.replace(tries.get() + 1) > 0);
        assert!(name.ends_with('0'), "{name}");
        assert!(check(&name).is_ok());
    }

    #[test]
    fn names_are_checked_as_dockerd_does() {
        for good in ["web", "/web", "a1", "A.b_c-d"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "/", "-ab", "a b", "a/b", "_x", "é1"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert_eq!(
            check("a b").unwrap_err().message,
            "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        );
    }
}
