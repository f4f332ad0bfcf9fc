//! A problem as a small page, for people.

use std::fmt::Write;

use super::Problem;

impl Problem {
    pub(super) fn page(&self) -> String {
        let (_, code, title) = self.code.describe();
        let mut rows = String::new();
        let mut row = |name: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = write!(rows, "<dt>{name}</dt><dd>{}</dd>", escape(value));
        };
        row("Code", code);
        if let Some(record) = &self.record {
            row("Record", record);
        }
        if let Some((_, Some(location))) = &self.original {
            row("Result", &String::from_utf8_lossy(location.as_bytes()));
        }
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
             <style>:root{{color-scheme:light dark}}\
             body{{font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:8vh auto;padding:0 1rem}}\
             h1{{font-size:1.4rem;line-height:1.2}}dt{{opacity:.7}}dd{{margin:0 0 .5rem;overflow-wrap:anywhere}}</style>\n\
             <h1>{title}</h1>\n<p>{}</p>\n<dl>{rows}</dl>\n</html>\n",
            escape(&self.detail)
        )
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
