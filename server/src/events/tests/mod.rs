mod concurrent;
mod counting;
mod parse;
mod sum;
