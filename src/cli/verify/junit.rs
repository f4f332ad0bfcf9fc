//! The table as JUnit's XML, which pipelines show as tests. It has no warnings: those pass, with their text.

use super::table;
use crate::text::escape_html;
use crate::verify::{CaseResult, CaseVerdict, VerifyReport};

pub(super) fn junit(report: &VerifyReport) -> String {
    let (tests, failures) = (report.cases.len(), report.count(CaseVerdict::Fail));
    let skipped = report.count(CaseVerdict::NotKnown);
    let numbers = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\"");
    let name = escaped(&format!("onlyonce verify {}", report.target));
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {numbers}>\n<testsuite name=\"{name}\" {numbers}>\n"
    );
    let effects = escaped(&table::counted(&report.effects));
    out.push_str(&format!("<properties><property name=\"effects\" value=\"{effects}\"/></properties>\n"));
    report.cases.iter().for_each(|case| test(&mut out, case));
    out.push_str("</testsuite>\n</testsuites>\n");
    out
}

fn test(out: &mut String, case: &CaseResult) {
    let name = format!("{}: {}", case.case.name(), case.case.title());
    out.push_str(&format!("<testcase classname=\"onlyonce.verify\" name=\"{}\">\n", escaped(&name)));
    let because = escaped(&case.because);
    let text = escaped(&format!("sent: {}\ncame: {}\nrule: {}", case.sent, case.came, case.rule));
    match case.verdict {
        CaseVerdict::Fail => out.push_str(&format!("<failure message=\"{because}\">{text}</failure>\n")),
        CaseVerdict::NotKnown => out.push_str(&format!("<skipped message=\"not known: {because}\"/>\n")),
        CaseVerdict::Pass | CaseVerdict::Warn => {
            let verdict = table::word(case.verdict);
            out.push_str(&format!("<system-out>{verdict}: {because}\n{text}</system-out>\n"));
        }
    }
    out.push_str("</testcase>\n");
}

/// XML has no place for control characters and some others (XML 1.0, 2.2).
fn escaped(text: &str) -> String {
    escape_html(&text.replace(|c: char| matches!(c, '\u{fffe}' | '\u{ffff}') || c.is_control() && c != '\n', "?"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_character_is_written_that_xml_has_not() {
        assert_eq!(super::escaped("a\u{1b}\u{fffe}\u{ffff}\n<"), "a???\n&lt;");
    }
}
