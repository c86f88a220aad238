//! The pages of the documentation, as blocks of code and links.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::photos::{repository, repository_file};

/// One page in Markdown.
pub struct Page {
    /// From the repository's folder.
    pub path: String,
    text: String,
}

/// A fenced block of code.
pub struct Block {
    /// The language after the fence; empty where there is none.
    pub language: String,
    /// The text of the heading above it.
    pub heading: String,
    /// The last paragraph above it.
    pub lead: String,
    pub text: String,
    /// The page and the line, for messages.
    pub place: String,
}

/// The page that the others continue.
pub const README: &str = "README.md";

impl Page {
    pub fn read(path: &str) -> Page {
        let text = String::from_utf8(repository_file(path)).expect("a page in UTF-8");
        Page { path: path.to_owned(), text }
    }

    /// README.md and the pages of docs/, in the order of their names.
    pub fn documentation() -> Vec<Page> {
        let mut paths = vec![README.to_owned()];
        paths.extend(pages_of("docs"));
        paths.iter().map(|path| Page::read(path)).collect()
    }

    /// All pages of the project that are written for readers.
    pub fn all() -> Vec<Page> {
        let mut pages = Page::documentation();
        let others = pages_of(".")
            .into_iter()
            .chain(["models/demo", "tests/parity"].iter().flat_map(|folder| pages_of(folder)));
        pages.extend(others.filter(|path| path != README).map(|path| Page::read(&path)));
        pages
    }

    pub fn blocks(&self) -> Vec<Block> {
        let (mut blocks, mut heading, mut in_heading) = (Vec::new(), String::new(), false);
        let (mut lead, mut in_lead) = (String::new(), false);
        let mut open: Option<Block> = None;
        self.walk(|event, range| match event {
            Event::Start(Tag::Heading { .. }) => {
                heading.clear();
                in_heading = true;
            }
            Event::End(TagEnd::Heading(_)) => in_heading = false,
            Event::Start(Tag::Paragraph) => {
                lead.clear();
                in_lead = true;
            }
            Event::End(TagEnd::Paragraph) => in_lead = false,
            Event::Start(Tag::CodeBlock(kind)) => {
                let language = match kind {
                    CodeBlockKind::Fenced(language) => language.to_string(),
                    CodeBlockKind::Indented => String::new(),
                };
                let line = self.text[..range.start].lines().count() + 1;
                let place = format!("{}:{line}", self.path);
                let (heading, lead) = (heading.clone(), lead.clone());
                open = Some(Block { language, heading, lead, text: String::new(), place });
            }
            Event::End(TagEnd::CodeBlock) => blocks.extend(open.take()),
            Event::Text(text) | Event::Code(text) => match &mut open {
                Some(block) => block.text += &text,
                None if in_heading => heading += &text,
                None if in_lead => lead += &text,
                None => {}
            },
            Event::SoftBreak if in_lead => lead.push(' '),
            _ => {}
        });
        blocks
    }

    /// Where its links and pictures lead, as they are written.
    pub fn links(&self) -> Vec<String> {
        let mut links = Vec::new();
        self.walk(|event, _| match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                links.push(dest_url.to_string());
            }
            Event::Html(html) | Event::InlineHtml(html) if !html.starts_with("<!--") => {
                let sources = html.split("src=\"").skip(1).filter_map(|rest| rest.split_once('"'));
                links.extend(sources.map(|(source, _)| source.to_owned()));
            }
            _ => {}
        });
        links
    }

    /// The part of a link to a heading after `#`, as GitHub makes it.
    pub fn anchors(&self) -> BTreeSet<String> {
        let (mut anchors, mut heading) = (BTreeSet::new(), None);
        self.walk(|event, _| match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    *heading += &text;
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                let anchor = anchor(&heading.take().expect("a heading has begun"));
                let taken = (1..).map(|number| format!("{anchor}-{number}"));
                let free = std::iter::once(anchor.clone()).chain(taken).find(|name| !anchors.contains(name));
                anchors.extend(free);
            }
            _ => {}
        });
        anchors
    }

    /// The rows of its tables, each with the heading above it; cells have no quotes.
    pub fn rows(&self) -> Vec<(String, Vec<String>)> {
        let (mut rows, mut heading, mut text): (Vec<(String, Vec<String>)>, _, _) =
            (Vec::new(), String::new(), String::new());
        self.walk(|event, _| match event {
            Event::Start(Tag::TableRow) => rows.push((heading.clone(), Vec::new())),
            Event::Start(Tag::TableCell | Tag::Heading { .. }) => text.clear(),
            Event::Text(piece) | Event::Code(piece) => text += &piece,
            Event::End(TagEnd::Heading(_)) => heading.clone_from(&text),
            Event::End(TagEnd::TableCell) => {
                if let Some((_, row)) = rows.last_mut() {
                    row.push(text.clone());
                }
            }
            _ => {}
        });
        rows
    }

    /// The whole page as it is written.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn walk(&self, mut see: impl FnMut(Event<'_>, Range<usize>)) {
        for (event, range) in Parser::new_ext(&self.text, Options::ENABLE_TABLES).into_offset_iter() {
            see(event, range);
        }
    }
}

fn pages_of(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(repository().join(folder)).expect("a folder is listed");
    let names =
        entries.map(|entry| entry.expect("an entry is read").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".md")).collect();
    names.sort();
    names.into_iter().map(|name| if folder == "." { name } else { format!("{folder}/{name}") }).collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|character| character.is_alphanumeric() || " -_".contains(*character));
    kept.map(|character| if character == ' ' { '-' } else { character }).collect()
}
