//! The types of a writer's fields, and the places of those that are read: made once from a plan, then interpreted.
#![forbid(unsafe_code)]

/// Types within types; the Python side leaves deeper schemas to its own decoder.
const DEPTH_MAX: usize = 64;
const NODES_MAX: usize = 4096;
const SYMBOLS_MAX: usize = 1 << 16;
const FIXED_BYTES_MAX: i64 = 1 << 20;
const COLUMNS_MAX: usize = 1 << 12;

/// A type. Its numbers in the encoding (`streams.avro.native`) are those of `Reader::node`.
pub enum Node {
    Null,
    Boolean,
    Long,
    Float,
    Double,
    Bytes,
    /// Bytes that must be UTF-8.
    Text,
    Fixed(usize),
    /// For each symbol its position in the reader; -1: none.
    Enum(Box<[i64]>),
    Record(Box<[Node]>),
    Array(Box<Node>),
    Map { has_text: bool, values: Box<Node> },
    Union(Box<[Node]>),
    /// Branch byte of null, branch byte of the other type.
    Optional(u8, u8, Box<Node>),
}

/// Where a value goes.
#[derive(Clone, Copy)]
pub enum Sink {
    Long(usize),
    Number { column: usize, is_exact: bool },
    Text(usize),
}

pub struct Field {
    pub node: Node,
    /// Branch bytes of null and of the value, of a field that may be null.
    pub optional: Option<(u8, u8)>,
    pub sinks: Box<[Sink]>,
}

pub struct Program {
    pub fields: Box<[Field]>,
    pub longs: usize,
    pub numbers: usize,
    pub texts: usize,
}

struct Reader<'a> {
    words: std::slice::Iter<'a, i64>,
    nodes: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Result<i64, String> {
        self.words.next().copied().ok_or_else(|| "the program ends within a type".to_owned())
    }

    fn count(&mut self, max: usize) -> Result<usize, String> {
        let count = self.next()?;
        usize::try_from(count).ok().filter(|&found| found <= max).ok_or_else(|| format!("a count of {count}"))
    }

    fn nodes(&mut self, depth: usize) -> Result<Box<[Node]>, String> {
        let count = self.count(NODES_MAX)?;
        (0..count).map(|_| self.node(depth + 1)).collect()
    }

    fn node(&mut self, depth: usize) -> Result<Node, String> {
        self.nodes += 1;
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            return Err("too many types, or too deep ones".to_owned());
        }
        Ok(match self.next()? {
            0 => Node::Null,
            1 => Node::Boolean,
            2 => Node::Long,
            3 => Node::Float,
            4 => Node::Double,
            5 => Node::Bytes,
            6 => Node::Text,
            7 => {
                let size = self.next()?;
                if !(0..=FIXED_BYTES_MAX).contains(&size) {
                    return Err(format!("a fixed of {size} bytes"));
                }
                Node::Fixed(usize::try_from(size).map_err(|error| error.to_string())?)
            }
            8 => {
                let count = self.count(SYMBOLS_MAX)?;
                Node::Enum((0..count).map(|_| self.next()).collect::<Result<_, _>>()?)
            }
            9 => Node::Record(self.nodes(depth)?),
            10 => Node::Array(Box::new(self.node(depth + 1)?)),
            11 => {
                let has_text = self.next()? != 0;
                Node::Map { has_text, values: Box::new(self.node(depth + 1)?) }
            }
            12 => Node::Union(self.nodes(depth)?),
            13 => {
                let (null, other) = if self.next()? == 0 { (0, 2) } else { (2, 0) };
                Node::Optional(null, other, Box::new(self.node(depth + 1)?))
            }
            other => return Err(format!("no type has the number {other}")),
        })
    }
}

fn sink(kind: i64, column: i64, program: &mut Program, node: &Node, is_optional: bool) -> Result<Sink, String> {
    let column = usize::try_from(column).ok().filter(|&found| found < COLUMNS_MAX).ok_or("no such column")?;
    let is_number = matches!(node, Node::Boolean | Node::Long | Node::Float | Node::Double | Node::Enum(_));
    match kind {
        0 if matches!(node, Node::Long) && !is_optional => {
            program.longs = program.longs.max(column + 1);
            Ok(Sink::Long(column))
        }
        1 | 2 if is_number => {
            program.numbers = program.numbers.max(column + 1);
            Ok(Sink::Number { column, is_exact: kind == 2 })
        }
        3 if matches!(node, Node::Text) => {
            program.texts = program.texts.max(column + 1);
            Ok(Sink::Text(column))
        }
        _ => Err(format!("no sink {kind} for this type")),
    }
}

/// A field as Python describes it: its type in preorder, and (kind, column) of each place that its values go to.
pub type FieldSpec = (Vec<i64>, Vec<(i64, i64)>);

impl Program {
    pub fn new(specs: &[FieldSpec], numbers: usize, texts: usize) -> Result<Program, String> {
        if numbers > COLUMNS_MAX || texts > COLUMNS_MAX || specs.len() > NODES_MAX {
            return Err("too many columns".to_owned());
        }
        let mut program = Program { fields: Box::new([]), longs: 0, numbers, texts };
        let mut fields = Vec::with_capacity(specs.len());
        let mut nodes = 0;
        for (words, targets) in specs {
            let mut reader = Reader { words: words.iter(), nodes };
            let made = reader.node(0)?;
            if reader.words.next().is_some() {
                return Err("words after the end of a type".to_owned());
            }
            nodes = reader.nodes;
            let (node, optional) = match made {
                Node::Optional(null, other, inner) => (*inner, Some((null, other))),
                node => (node, None),
            };
            let sinks = targets
                .iter()
                .map(|&(kind, column)| sink(kind, column, &mut program, &node, optional.is_some()))
                .collect::<Result<_, _>>()?;
            fields.push(Field { node, optional, sinks });
        }
        if program.numbers > numbers || program.texts > texts {
            return Err("a column beyond the last one".to_owned());
        }
        program.fields = fields.into();
        Ok(program)
    }
}
