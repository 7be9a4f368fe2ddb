//! Interprets a program over a record.
#![forbid(unsafe_code)]

use crate::columns::Columns;
use crate::cursor::Cursor;
use crate::program::{Field, Node, Program, Sink};

/// Beyond this, whole numbers of 64 bits are not all doubles (`WHOLE_NUMBER_MAX`).
const WHOLE_NUMBER_MAX: i64 = 1 << 53;

/// Decode one record into the next row; `None`: it is doubtful, and `columns` holds parts of it.
pub fn record(program: &Program, body: &[u8], columns: &mut Columns) -> Option<()> {
    let mut cursor = Cursor::new(body);
    for field in &program.fields {
        read(field, &mut cursor, columns)?;
    }
    cursor.is_at_end().then_some(())
}

#[inline]
fn read(field: &Field, cursor: &mut Cursor, columns: &mut Columns) -> Option<()> {
    if let Some((null, other)) = field.optional {
        let branch = cursor.byte()?;
        if branch == null {
            return field.sinks.iter().try_for_each(|&sink| match sink {
                Sink::Long(_) => None,
                Sink::Number { column, .. } => columns.set_null(column),
                Sink::Text(column) => columns.texts.get_mut(column)?.push(None),
            });
        }
        if branch != other {
            return None;
        }
    }
    if field.sinks.is_empty() {
        return skip(&field.node, cursor);
    }
    match &field.node {
        Node::Text => {
            let text = cursor.text()?;
            field.sinks.iter().try_for_each(|&sink| match sink {
                Sink::Text(column) => columns.texts.get_mut(column)?.push(Some(text)),
                _ => None,
            })
        }
        Node::Long => whole(cursor.long()?, field, columns),
        Node::Enum(codes) => whole(symbol(codes, cursor)?, field, columns),
        Node::Boolean => number(if cursor.boolean()? { 1.0 } else { 0.0 }, field, columns),
        Node::Double => number(f64::from_le_bytes(cursor.array()?), field, columns),
        Node::Float => number(f64::from(f32::from_le_bytes(cursor.array()?)), field, columns),
        _ => None,
    }
}

#[inline]
fn whole(value: i64, field: &Field, columns: &mut Columns) -> Option<()> {
    field.sinks.iter().try_for_each(|&sink| match sink {
        Sink::Long(column) => columns.set_long(column, value),
        Sink::Number { column, is_exact } => {
            let is_held = !is_exact || (-WHOLE_NUMBER_MAX..=WHOLE_NUMBER_MAX).contains(&value);
            columns.set_number(column, if is_held { value as f64 } else { f64::INFINITY })
        }
        Sink::Text(_) => None,
    })
}

#[inline]
fn number(value: f64, field: &Field, columns: &mut Columns) -> Option<()> {
    field.sinks.iter().try_for_each(|&sink| match sink {
        Sink::Number { column, .. } => columns.set_number(column, value),
        _ => None,
    })
}

fn symbol(codes: &[i64], cursor: &mut Cursor) -> Option<i64> {
    codes.get(cursor.size()?).copied().filter(|&code| code >= 0)
}

fn skip(node: &Node, cursor: &mut Cursor) -> Option<()> {
    match node {
        Node::Null => Some(()),
        Node::Boolean => cursor.boolean().map(drop),
        Node::Long => cursor.long().map(drop),
        Node::Float => cursor.take(4).map(drop),
        Node::Double => cursor.take(8).map(drop),
        Node::Bytes => cursor.bytes().map(drop),
        Node::Text => cursor.text().map(drop),
        Node::Fixed(size) => cursor.take(*size).map(drop),
        Node::Enum(codes) => symbol(codes, cursor).map(drop),
        Node::Record(fields) => fields.iter().try_for_each(|field| skip(field, cursor)),
        Node::Array(items) => block(cursor, |cursor| skip(items, cursor)),
        Node::Map { has_text, values } => block(cursor, |cursor| {
            if *has_text { cursor.text()? } else { cursor.bytes()? };
            skip(values, cursor)
        }),
        Node::Union(branches) => skip(branches.get(cursor.size()?)?, cursor),
        Node::Optional(null, other, inner) => match cursor.byte()? {
            found if found == *null => Some(()),
            found if found == *other => skip(inner, cursor),
            _ => None,
        },
    }
}

/// An array or a map in at most one block with a plain count, as writers write them; anything else is doubt.
fn block(cursor: &mut Cursor, mut item: impl FnMut(&mut Cursor) -> Option<()>) -> Option<()> {
    let count = cursor.size()?;
    if count == 0 {
        return Some(());
    }
    if count > cursor.remaining() {
        return None; // each item takes a byte or more
    }
    for _ in 0..count {
        item(cursor)?;
    }
    (cursor.byte()? == 0).then_some(())
}
