package history

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/klauspost/compress/s2"
)

// blockBytes is how much is compressed at once. The JSON lines of one node are similar:
// 64 KiB of them shrink to a twelfth and a larger block gains little, while what is not yet
// compressed counts in full. S2 takes 0.7 µs a trace; zstd would halve the size again for
// three times that (measured with 2 KB traces).
const blockBytes = 64 << 10

// blockOverhead is what a block costs in memory beside its data, and shareBytes what
// one of its clients does.
const (
	blockOverhead = 160
	shareBytes    = 8
)

// entryHead is what stands before each line: when it finished (Unix time in ns), its
// place in the order of all lines, the number of its client, and its length, with a bit
// for one that replaces an earlier line.
const (
	entryHead    = 8 + 8 + 4 + 4
	replacesFlag = 1 << 31
)

// entry is a line as it is read.
type entry struct {
	line     []byte
	finished int64 // Unix time in ns
	seq      uint64
	client   uint32
	replaces bool
}

// share is what the lines of a client take in a block, in bytes before compression.
type share struct {
	client, bytes uint32
}

// block is traces that are kept and evicted together. One that is compressed does not
// change any more.
type block struct {
	last       time.Time // when the newest of them finished
	traces     int
	compressed bool
	raw        int // bytes before compression
	data       []byte
	shares     []share
}

// bytes is what the block takes in memory.
func (b *block) bytes() int {
	if b.traces == 0 {
		return 0
	}
	return blockOverhead + len(b.data) + shareBytes*len(b.shares)
}

// add appends a trace.
func (b *block) add(e *entry) {
	if finished := time.Unix(0, e.finished); b.traces == 0 || finished.After(b.last) {
		b.last = finished
	}
	b.data = binary.NativeEndian.AppendUint64(b.data, uint64(e.finished))
	b.data = binary.NativeEndian.AppendUint64(b.data, e.seq)
	b.data = binary.NativeEndian.AppendUint32(b.data, e.client)
	length := uint32(len(e.line))
	if e.replaces {
		length |= replacesFlag
	}
	b.data = binary.NativeEndian.AppendUint32(b.data, length)
	b.data = append(b.data, e.line...)
	b.raw = len(b.data)
	b.traces++
	i := slices.IndexFunc(b.shares, func(s share) bool { return s.client == e.client })
	if i < 0 {
		i = len(b.shares)
		b.shares = append(b.shares, share{client: e.client})
	}
	b.shares[i].bytes += uint32(entryHead + len(e.line))
}

// reset empties the block and keeps its memory.
func (b *block) reset() { *b = block{data: b.data[:0], shares: b.shares[:0]} }

// compress returns the block compressed, in memory of its exact size. scratch is working
// memory.
func (b *block) compress(scratch *[]byte) *block {
	*scratch = s2.Encode((*scratch)[:cap(*scratch)], b.data)
	return &block{last: b.last, traces: b.traces, compressed: true, raw: b.raw, data: slices.Clone(*scratch), shares: slices.Clone(b.shares)}
}

// entries returns what finished at or after since, oldest first.
func (b *block) entries(since int64) []entry {
	data := b.data
	if b.compressed {
		var err error
		if data, err = s2.Decode(nil, b.data); err != nil {
			return nil // compressed by this process: cannot be broken
		}
	}
	var entries []entry
	for len(data) >= entryHead {
		e := entry{
			finished: int64(binary.NativeEndian.Uint64(data)), seq: binary.NativeEndian.Uint64(data[8:]),
			client: binary.NativeEndian.Uint32(data[16:]),
		}
		length := binary.NativeEndian.Uint32(data[20:])
		end := entryHead + int(length&^replacesFlag)
		if e.finished >= since {
			e.line, e.replaces = data[entryHead:end:end], length&replacesFlag != 0
			entries = append(entries, e)
		}
		data = data[end:]
	}
	return entries
}
