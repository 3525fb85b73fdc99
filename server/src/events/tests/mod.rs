mod concurrent;
mod counting;
mod parse;
mod state;
mod sum;
