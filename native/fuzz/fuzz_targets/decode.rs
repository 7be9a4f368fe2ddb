//! Any program over any records, with the sanitizer: no panic, and a record in doubt leaves no trace in the columns.
//!
//! The input is a program, then records, each after its length. `tests.native_fuzz` compares values with fastavro; this
//! looks for what must not happen whatever the bytes are.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../src/columns.rs"]
#[allow(dead_code)]
mod columns;
#[path = "../../src/cursor.rs"]
mod cursor;
#[path = "../../src/decode.rs"]
mod decode;
#[path = "../../src/program.rs"]
mod program;
#[path = "../../src/valid.rs"]
mod valid;
#[path = "../../src/words.rs"]
mod words;

use columns::Columns;
use program::{FieldSpec, Program};
use valid::Rules;

const NUMBERS: usize = 4;
const TEXTS: usize = 4;
const FIELDS_MAX: usize = 16;
const WORDS_MAX: usize = 24;
const RECORDS_MAX: usize = 64;

/// The first bytes of the input, as many as are asked for and there.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> usize {
        let [first] = *self.take(1) else { return 0 };
        usize::from(first)
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Half of the words are numbers of types, as otherwise hardly any program would be one.
fn spec(input: &mut Input<'_>) -> FieldSpec {
    let words = (0..input.byte() % WORDS_MAX).map(|_| {
        let word = i64::from(input.byte() as i8);
        if word < 0 { word } else { word % 14 }
    });
    let words = words.collect();
    let sinks = (0..input.byte() % 3).map(|_| {
        let word = input.byte();
        ((word % 4) as i64, (word / 4 % 5) as i64)
    });
    (words, sinks.collect())
}

/// Whether no column of texts is written twice by a record: Python makes no such program.
fn has_one_writer_each(specs: &[FieldSpec]) -> bool {
    (0..TEXTS as i64).all(|column| specs.iter().flat_map(|(_, sinks)| sinks).filter(|&&one| one == (3, column)).count() < 2)
}

/// The rows that are decoded, and their columns.
fn decoded(program: &Program, records: &[&[u8]]) -> (Vec<usize>, Columns) {
    let mut columns = Columns::new(program.longs, program.numbers, program.texts, records.len());
    let mut rows = Vec::new();
    for (row, record) in records.iter().enumerate() {
        if decode::record(program, record, &mut columns).is_some() {
            columns.accept();
            rows.push(row);
        } else {
            columns.refuse();
        }
    }
    columns.finish();
    (rows, columns)
}

fn same(one: &Columns, other: &Columns) -> bool {
    let bits = |columns: &Columns| columns.numbers.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
    one.rows == other.rows
        && one.longs == other.longs
        && one.nulls == other.nulls
        && bits(one) == bits(other)
        && one.texts.iter().zip(&other.texts).all(|(one, other)| {
            one.offsets == other.offsets && one.data == other.data && one.valid == other.valid
        })
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let specs: Vec<FieldSpec> = (0..input.byte() % FIELDS_MAX).map(|_| spec(&mut input)).collect();
    if !has_one_writer_each(&specs) {
        return;
    }
    let Ok(program) = Program::new(&specs, NUMBERS, TEXTS) else { return };
    let mut records = Vec::new();
    while !input.0.is_empty() && records.len() < RECORDS_MAX {
        let size = input.byte();
        records.push(input.take(size));
    }
    let (rows, columns) = decoded(&program, &records);
    assert_eq!(columns.rows, rows.len());
    assert!(columns.longs.iter().all(|column| column.len() == rows.len()));
    assert_eq!((columns.numbers.len(), columns.nulls.len()), (NUMBERS * rows.len(), NUMBERS * rows.len()));
    for texts in columns.texts.iter().filter(|texts| texts.valid.len() == rows.len()) {
        assert!((0..rows.len()).all(|row| texts.get(row).is_some()), "each text lies within the data");
    }
    let accepted: Vec<&[u8]> = rows.iter().map(|&row| records[row]).collect();
    let (again, alone) = decoded(&program, &accepted);
    assert_eq!(again.len(), rows.len(), "what is accepted among others is accepted without them");
    assert!(same(&columns, &alone), "what is refused leaves no trace");
    let ranges = [(0, -90.0, 90.0), (NUMBERS, 0.0, 1.0)];
    let rules = Rules { frame: &[], bytes_max: 1 << 20, ranges: &ranges, id_bytes_max: 128, key_bytes_max: 1024 };
    let mut columns = Columns::new(program.longs, program.numbers, program.texts, accepted.len());
    for record in accepted {
        if decode::record(&program, record, &mut columns).is_some() && rules.accept(&columns, b"key", i64::MAX) {
            columns.accept();
        } else {
            columns.refuse();
        }
    }
    for row in 0..columns.rows {
        let _ = columns.texts.first().and_then(|ids| ids.get(row)).map(words::words);
    }
});
