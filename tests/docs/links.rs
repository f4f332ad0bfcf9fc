//! Links lead to files that are there, and to headings in them.

use std::path::{Component, Path, PathBuf};

use crate::page::{Page, pages, root};

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        for link in links(&page.prose()) {
            if let Err(why) = follow(&page, &link) {
                broken.push(format!("{}: {link}: {why}", page.name));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// A page that nothing links to is read by nobody.
#[test]
fn every_page_is_linked_from_the_readme() {
    let links = links(&Page::read("README.md").prose());
    let linked = |name: &str| links.iter().any(|link| link.split('#').next() == Some(name));
    let lost: Vec<String> =
        pages().into_iter().map(|page| page.name).filter(|name| name != "README.md" && !linked(name)).collect();
    assert!(lost.is_empty(), "the README links to none of: {}", lost.join(", "));
}

#[test]
fn a_link_to_nowhere_is_found() {
    let page = Page { name: "docs/rules.md".into(), text: String::new() };
    assert_eq!(follow(&page, "../README.md#install"), Ok(()));
    assert!(follow(&page, "../README.md#no-such-heading").is_err());
    assert!(follow(&page, "no-such-page.md").is_err());
    assert_eq!(links("[a](b.md), ![c](d.svg) and `[e](f)`"), ["b.md", "d.svg", "f"]);
    assert_eq!(slug("What is *not* covered: `a`, b?"), "what-is-not-covered-a-b");
}

fn links(prose: &str) -> Vec<String> {
    // A line break may stand in the text of a link, and not in its target.
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}

fn follow(page: &Page, link: &str) -> Result<(), String> {
    if link.starts_with("https://") {
        return Ok(());
    }
    let (path, heading) = link.split_once('#').map_or((link, None), |(path, heading)| (path, Some(heading)));
    let folder = Path::new(&page.name).parent().unwrap_or(Path::new(""));
    let target = if path.is_empty() { PathBuf::from(&page.name) } else { plain(&folder.join(path)) };
    if !root().join(&target).exists() {
        return Err(format!("there is no {}", target.display()));
    }
    let Some(heading) = heading else { return Ok(()) };
    let target = Page::read(target.to_str().expect("UTF-8"));
    let headings: Vec<String> = target.prose().lines().filter_map(title).map(slug).collect();
    match headings.iter().any(|there| there == heading) {
        true => Ok(()),
        false => Err(format!("{} has no such heading", target.name)),
    }
}

fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

fn title(line: &str) -> Option<&str> {
    let title = line.trim_start_matches('#');
    (title.len() < line.len()).then(|| title.strip_prefix(' '))?
}

/// The anchor that GitHub makes of a heading.
fn slug(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
    kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
}
