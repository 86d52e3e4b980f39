//! Stock answers, as simulated devices give them.

use wire_format::payload::{Level, Payload, StockAnswer, StockQuestion};

/// Bytes of an encoded answer.
pub(crate) const ANSWER_LEN_MAX: usize = StockAnswer::LEN_MAX;

/// `unknown`, `none`, `some`, or a quantity with up to three decimals; as a value parser.
pub(crate) fn level(text: &str) -> Result<Level, String> {
    match text {
        "unknown" => Ok(Level::Unknown),
        "none" => Ok(Level::None),
        "some" => Ok(Level::Some),
        _ => crate::push::milli(text)
            .map(|milli| Level::Counted(milli.into()))
            .ok_or_else(|| "unknown, none, some, or a quantity such as 12 or 3.5".to_owned()),
    }
}

/// Writes the answer to an encoded question; bytes written, `None` if it is no question about stock.
pub(crate) fn answer(question: &[u8], level: Level, buffer: &mut [u8]) -> Option<usize> {
    let StockQuestion { article, .. } = StockQuestion::decode(question).ok()?;
    StockAnswer { article, level, age_s: 0 }.encode(buffer).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_what_the_question_asked_for() {
        let mut question = [0; StockQuestion::LEN_MAX];
        let len = StockQuestion { article: 7, place: "" }.encode(&mut question).unwrap();
        let mut buffer = [0; ANSWER_LEN_MAX];
        let written = answer(&question[..len], level("3.5").unwrap(), &mut buffer).unwrap();
        let given = StockAnswer::decode(&buffer[..written]).unwrap();
        assert_eq!((given.article, given.level), (7, Level::Counted(3_500)));
        assert_eq!(answer(b"nonsense", Level::Some, &mut buffer), None);
        assert!(level("a few").is_err());
    }
}
