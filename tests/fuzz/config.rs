//! Reading a configuration file never panics, and every problem has a place in the file.

use onlyonce::advice::warnings;
use onlyonce::config::{ConfigError, parse};

pub fn check(text: &str) {
    let environment = |variable: &str| (variable != "UNSET").then(|| "value of a variable".to_owned());
    match parse("fuzz.toml", text, &environment) {
        Ok(config) => drop(warnings(&config)),
        Err(ConfigError::Unreadable { .. }) => panic!("it was read"),
        Err(error @ ConfigError::Invalid { .. }) => {
            assert!(!error.to_string().is_empty());
            let ConfigError::Invalid { problems, .. } = error else { unreachable!() };
            assert!(!problems.is_empty());
            for problem in problems {
                let within = problem.span.clone().is_none_or(|span| text.get(span).is_some());
                assert!(within, "{problem:?} is not in the file");
            }
        }
    }
}
