// Package segment stores the events of one log group in a directory of
// append-only files.
//
// A Log has one active segment (NNNNNNNN.log), to which every batch is
// appended as one block, and sealed ones (NNNNNNNN.seg), in which the blocks
// of each stream were merged, sorted and compressed with zstd. Append returns
// when its block is synced; appends that wait at the same moment share one
// write and one fsync. A crash can only tear the tail of the active segment,
// which Open cuts off: nobody was told that it is there.
//
// A block is a header of fixed size (see block.go: magic, CRC-32C, lengths,
// stream, counts, and the least and greatest time) and its events, sorted by
// time. The headers of all blocks are the index, kept in memory; sealing
// keeps it small. Every event has a sequence number, unique in the group and
// rising in the order of ingestion: (time, sequence) is the total order in
// which events are read and where a page token points.
package segment
