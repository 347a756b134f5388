//! `bcosc explain MODEL IMAGE... -o DIR`

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::bail;
use bcosc::sheet::{Row, page, sheet};
use bcosc::{Choice, Error, Explained, Explainer, Explanation, Intake, Labels, encoded_png, raw};
use comfy_table::ContentArrangement;
use serde::Serialize;

use super::args::{ExplainArgs, RawArg};
use super::files::{self, check_kept, check_outputs, for_tables, make_folder};
use super::items::{Item, check_apart, check_names, items};
use super::messages::Messages;
use super::progress::Progress;
use super::tables;

/// Maximum number of rows in a sheet.
const ROWS: usize = 500;
/// Maximum number of pictures in the table on the terminal.
const SHOWN: usize = 20;

/// The result for one picture.
#[derive(Serialize)]
struct Entry {
    image: PathBuf,
    #[serde(skip)]
    shown: String,
    explanations: Vec<Line>,
    files: Vec<PathBuf>,
    #[serde(skip)]
    rows: Vec<Row>,
}

/// One explained class.
#[derive(Serialize)]
struct Line {
    label: Option<String>,
    #[serde(flatten)]
    explanation: Explanation,
}

/// The JSON report.
#[derive(Serialize)]
struct Report<'a> {
    bcosc: &'static str,
    model: &'a Path,
    preprocessing: &'a Intake,
    images: Vec<&'a Entry>,
}

/// Explains pictures, writes the results and prints a table.
pub fn run(args: &ExplainArgs, messages: Messages) -> anyhow::Result<()> {
    if let Some(folder) = &args.out {
        check_apart(folder, &args.images)?;
    }
    let progress = Progress::new(messages.animated());
    progress.say("building the explanation graph");
    let explainer = Explainer::open(&args.model, &args.predict.options())?;
    let labels = match &args.predict.labels {
        Some(path) => Some(Labels::read(path, explainer.predictor.classes)?),
        None => None,
    };
    let choice = choice(args, labels.as_ref())?;
    explainer.check(&choice)?;
    let items = items(&args.images, args.out.as_deref())?;
    if args.out.is_some() {
        check_names(&items)?;
    }
    if let Some(folder) = &args.out {
        make_folder(folder)?;
    }
    check_outputs(args.results())?;
    check_kept([&args.model], args.results())?;
    let job = Job {
        rows: (ROWS / choice.count()).max(1),
        args,
        labels: labels.as_ref(),
        explainer: &explainer,
    };
    progress.count("explaining", items.len());
    let found: Mutex<BTreeMap<usize, anyhow::Result<Entry>>> = Mutex::default();
    let paths: Vec<PathBuf> = items.iter().map(|item| item.path.clone()).collect();
    explainer.explain_files(&paths, &choice, &|place, explained| {
        let draw = args.sheet.is_some() && place < job.rows;
        let entry = explained
            .map_err(anyhow::Error::from)
            .and_then(|explained| job.write(&items[place], explained, draw));
        progress.advance();
        found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(place, entry);
    })?;
    drop(progress);

    let (mut entries, mut failed) = (Vec::new(), 0);
    for entry in found
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .into_values()
    {
        match entry {
            Ok(entry) => entries.push(entry),
            Err(error) => {
                messages.error(&error);
                failed += 1;
            }
        }
    }
    if !entries.is_empty() {
        job.finish(&mut entries, items.len(), messages)?;
    }
    match failed {
        0 => Ok(()),
        _ => bail!(
            "{failed} of {} pictures could not be explained",
            items.len()
        ),
    }
}

/// State shared by all pictures.
struct Job<'a> {
    /// Maximum number of pictures in the sheet.
    rows: usize,
    args: &'a ExplainArgs,
    labels: Option<&'a Labels>,
    explainer: &'a Explainer,
}

impl Job<'_> {
    /// Writes the results of one picture.
    fn write(&self, item: &Item, explained: Explained, draw: bool) -> anyhow::Result<Entry> {
        let mut entry = Entry {
            image: item.path.clone(),
            shown: item.shown.clone(),
            explanations: Vec::new(),
            files: Vec::new(),
            rows: Vec::new(),
        };
        let several = explained.explanations.len() > 1;
        for explanation in &explained.explanations {
            if let Some(folder) = &self.args.out {
                let class = match several {
                    true => format!(".{}", explanation.class),
                    false => String::new(),
                };
                for (what, bytes) in pictures_of(&explained, explanation)? {
                    let path = named(folder, &item.name, &format!("{class}.{what}.png"));
                    entry.write(path, &bytes)?;
                }
            }
            if draw {
                let label = self.labels.and_then(|l| l.name(explanation.class));
                let caption = caption(&item.shown, explanation, label);
                entry.rows.extend(Row::of(caption, &explained, explanation));
            }
        }
        if let Some(folder) = &self.args.out {
            let intake = &self.explainer.predictor.intake;
            for format in &self.args.raw {
                let (extension, bytes) = match format {
                    RawArg::Npz => ("npz", raw::npz(&explained.explanations, intake)?),
                    RawArg::Safetensors => (
                        "safetensors",
                        raw::safetensors(&explained.explanations, intake)?,
                    ),
                };
                let path = named(folder, &item.name, &format!(".{extension}"));
                entry.write(path, &bytes)?;
            }
        }
        for explanation in explained.explanations {
            let label = self.labels.and_then(|l| l.name(explanation.class));
            entry.explanations.push(Line {
                label: label.map(str::to_owned),
                // The maps are written; drop them to save memory.
                explanation: Explanation {
                    logits: Vec::new(),
                    weights: Vec::new(),
                    contributions: Vec::new(),
                    ..explanation
                },
            });
        }
        Ok(entry)
    }

    /// Writes the report and the sheet, and prints the table.
    fn finish(
        &self,
        entries: &mut [Entry],
        count: usize,
        messages: Messages,
    ) -> anyhow::Result<()> {
        if let Some(path) = &self.args.report {
            let report = Report {
                bcosc: env!("CARGO_PKG_VERSION"),
                model: &self.args.model,
                preprocessing: &self.explainer.predictor.intake,
                images: entries.iter().collect(),
            };
            files::write_json(path, &report)?;
        }
        let rows: Vec<Row> = entries
            .iter_mut()
            .flat_map(|e| mem::take(&mut e.rows))
            .collect();
        if let Some(path) = self.args.sheet.as_ref().filter(|_| !rows.is_empty()) {
            if count > self.rows {
                messages.warning(&format!(
                    "the sheet shows only the first {} of {count} pictures",
                    self.rows
                ));
            }
            let is_png = path
                .extension()
                .is_some_and(|e| e.eq_ignore_ascii_case("png"));
            match is_png.then(|| sheet(&rows)).flatten() {
                Some(picture) => files::write(path, &encoded_png(&picture)?)?,
                None => files::write(path, page(&title(&self.args.model), &rows)?.as_bytes())?,
            }
        }
        if !messages.quiet() {
            self.print(&mut *for_tables(self.args.results()), entries)?;
        }
        Ok(())
    }

    fn print(&self, out: &mut dyn Write, entries: &[Entry]) -> io::Result<()> {
        let mut table = tables::plain();
        // Do not wrap file names.
        table.set_content_arrangement(ContentArrangement::Disabled);
        let mut header = vec!["picture", "class", "logit"];
        let predictor = &self.explainer.predictor;
        if predictor.probability.is_some() {
            header.push("probability");
        }
        header.extend(["contributions", "residual"]);
        table.set_header(header);
        for entry in entries.iter().take(SHOWN) {
            for (i, line) in entry.explanations.iter().enumerate() {
                let found = &line.explanation;
                let picture = if i == 0 {
                    entry.shown.clone()
                } else {
                    String::new()
                };
                let mut row = vec![
                    picture,
                    class(found, line.label.as_deref()),
                    format!("{:.4}", found.logit),
                ];
                row.extend(found.probability.map(|p| format!("{p:.4}")));
                row.extend([format!("{:.4}", found.contribution), residual(found)]);
                table.add_row(row);
            }
        }
        tables::align_right(&mut table, 2..6);
        writeln!(out, "{}", tables::text(table))?;
        if let Some(more) = entries.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            writeln!(out, "and {more} more (see --report)")?;
        }
        match predictor.logit_bias {
            0.0 => writeln!(out, "\nlogit = contributions + residual"),
            bias => writeln!(
                out,
                "\nlogit = contributions + residual + logit bias ({bias:.4})"
            ),
        }?;
        let all: Vec<&PathBuf> = entries.iter().flat_map(|e| &e.files).collect();
        if let (Some(folder), [_, ..]) = (&self.args.out, &all[..]) {
            writeln!(out, "wrote {} files to {}", all.len(), folder.display())?;
        }
        match &self.args.sheet {
            Some(path) => writeln!(out, "wrote sheet {}", path.display()),
            None => Ok(()),
        }
    }
}

impl Entry {
    fn write(&mut self, path: PathBuf, bytes: &[u8]) -> anyhow::Result<()> {
        if let Some(folder) = path.parent() {
            make_folder(folder)?;
        }
        files::write(&path, bytes)?;
        self.files.push(path);
        Ok(())
    }
}

/// The pictures of one explanation as PNG files, by kind.
fn pictures_of(
    explained: &Explained,
    explanation: &Explanation,
) -> Result<Vec<(&'static str, Vec<u8>)>, Error> {
    let mut files = Vec::new();
    if let Some(picture) = explanation.picture() {
        files.push(("explanation", encoded_png(&picture)?));
    }
    if let Some(overlay) = explanation.overlay(&explained.image) {
        files.push(("overlay", encoded_png(&overlay)?));
    }
    if let Some((map, _)) = explanation.contribution_map() {
        files.push(("contributions", encoded_png(&map)?));
    }
    Ok(files)
}

fn choice(args: &ExplainArgs, labels: Option<&Labels>) -> anyhow::Result<Choice> {
    if args.class.is_empty() {
        return Ok(Choice::Top(args.top));
    }
    let mut classes = Vec::new();
    // Names may contain commas.
    let whole = |text: &&String| labels.is_some_and(|l| l.class(text).is_ok());
    let (names, lists): (Vec<&String>, Vec<&String>) = args.class.iter().partition(whole);
    let listed = lists.into_iter().flat_map(|list| list.split(','));
    for text in names.into_iter().map(String::as_str).chain(listed) {
        let text = text.trim();
        let class = match (text.parse(), labels) {
            (Ok(class), _) => class,
            (Err(_), Some(labels)) => labels.class(text)?,
            (Err(_), None) => bail!("`{text}` is not a class number; class names require --labels"),
        };
        if !classes.contains(&class) {
            classes.push(class);
        }
    }
    Ok(Choice::Classes(classes))
}

fn named(folder: &Path, name: &Path, suffix: &str) -> PathBuf {
    let mut path = folder.join(name).into_os_string();
    path.push(suffix);
    path.into()
}

/// The residual in a notation that suits both rounding errors and constant terms.
fn residual(explanation: &Explanation) -> String {
    match explanation.residual {
        small if small.abs() < 1e-3 => format!("{small:.1e}"),
        large => format!("{large:.4}"),
    }
}

fn class(explanation: &Explanation, label: Option<&str>) -> String {
    match label {
        Some(label) => format!("{} {label}", explanation.class),
        None => explanation.class.to_string(),
    }
}

fn caption(shown: &str, explanation: &Explanation, label: Option<&str>) -> String {
    let probability = explanation
        .probability
        .map_or_else(String::new, |p| format!(", probability {p:.3}"));
    format!(
        "{shown}: class {}, logit {:.3}{probability}, residual {}",
        class(explanation, label),
        explanation.logit,
        residual(explanation)
    )
}

fn title(model: &Path) -> String {
    let name = model.file_name().unwrap_or(model.as_os_str());
    format!("Explanations of {}", name.to_string_lossy())
}
