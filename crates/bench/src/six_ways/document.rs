//! A document of about 3,000 tokens, and what agents change in it.

use serde::{Deserialize, Serialize};

/// Paragraphs of the document.
const PARAGRAPHS: usize = 32;

/// What every paragraph is made of; a number in each makes it another.
const SENTENCES: [&str; 4] = [
    "The plant asks for a plan that keeps line {} running while its oldest machines are replaced one at a time.",
    "Measurement {} shows more vibration than in the month before, though still within what the maker allows.",
    "Whoever is on shift {} writes down what was changed, so that the next one need not find it out again.",
    "Item {} of the budget pays for the parts, not for the hours, which come out of what was saved last year.",
];

/// The document, a paragraph each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Document(Vec<String>);

/// One paragraph written anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Edit {
    /// In which step.
    pub step: u32,
    /// Which paragraph.
    paragraph: usize,
    /// What it says now.
    text: String,
}

impl Document {
    /// As it is given to the first agent.
    pub(crate) fn new() -> Self {
        Self((0..PARAGRAPHS).map(|number| paragraph(number, 0)).collect())
    }

    /// Bytes of its text.
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(String::len).sum()
    }

    /// What an agent writes in this step.
    pub(crate) fn write(&self, step: u32) -> Edit {
        let paragraph = step as usize * 7 % self.0.len().max(1);
        Edit { step, paragraph, text: self::paragraph(paragraph, step + 1) }
    }

    /// Puts an edit in its place.
    pub(crate) fn apply(&mut self, edit: &Edit) {
        if let Some(paragraph) = self.0.get_mut(edit.paragraph) {
            paragraph.clone_from(&edit.text);
        }
    }
}

fn paragraph(number: usize, version: u32) -> String {
    let sentences = SENTENCES.iter().zip(1..).map(|(sentence, place): (_, usize)| {
        sentence.replace("{}", &format!("{}.{version}", number * 10 + place))
    });
    sentences.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_about_three_thousand_tokens() {
        let tokens = Document::new().bytes() / 4;
        assert!((2_900..=3_500).contains(&tokens), "{tokens}");
    }

    #[test]
    fn an_edit_changes_one_paragraph() {
        let mut document = Document::new();
        let edit = document.write(3);
        document.apply(&edit);
        let changed = Document::new().0.iter().zip(&document.0).filter(|(old, new)| old != new).count();
        assert_eq!(changed, 1);
    }
}
