package history

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/klauspost/compress/s2"
)

// blockBytes is how much is compressed at once. JSON lines of one node are much
// alike: 64 KiB of them shrink to a twelfth and a larger block gains little, while
// what is not compressed yet counts in full. S2 takes 0.7 µs a trace; zstd would
// halve the size again for three times that (measured with 2 KB traces).
const blockBytes = 64 << 10

// blockOverhead is what a block costs in memory beside its data.
const blockOverhead = 128

// entryHead is what stands before each line: when it finished (Unix time in ns),
// and its length, with a bit for one that replaces an earlier line.
const (
	entryHead    = 8 + 4
	replacesFlag = 1 << 31
)

// entry is a line as it is read.
type entry struct {
	line     []byte
	replaces bool
}

// block is traces that are kept and let go together.
type block struct {
	last       time.Time // when the newest of them finished
	traces     int
	replaces   bool // some of them replace others
	compressed bool
	data       []byte
}

// bytes is what the block takes in memory.
func (b *block) bytes() int {
	if b.traces == 0 {
		return 0
	}
	return blockOverhead + len(b.data)
}

// add appends a trace and returns how many bytes more the block takes.
func (b *block) add(finished time.Time, line []byte, replaces bool) int {
	before := b.bytes()
	if b.traces == 0 || finished.After(b.last) {
		b.last = finished
	}
	b.data = binary.NativeEndian.AppendUint64(b.data, uint64(finished.UnixNano()))
	length := uint32(len(line))
	if replaces {
		length |= replacesFlag
		b.replaces = true
	}
	b.data = binary.NativeEndian.AppendUint32(b.data, length)
	b.data = append(b.data, line...)
	b.traces++
	return b.bytes() - before
}

// compress returns the block in as little memory as it takes. scratch is room to
// work in.
func (b *block) compress(scratch *[]byte) *block {
	*scratch = s2.Encode((*scratch)[:cap(*scratch)], b.data)
	return &block{last: b.last, traces: b.traces, replaces: b.replaces, compressed: true, data: slices.Clone(*scratch)}
}

// entries returns what finished at or after since, oldest first.
func (b *block) entries(since time.Time) []entry {
	data := b.data
	if b.compressed {
		var err error
		if data, err = s2.Decode(nil, b.data); err != nil {
			return nil // compressed by this process: cannot be broken
		}
	}
	from := since.UnixNano()
	var entries []entry
	for len(data) >= entryHead {
		finished := int64(binary.NativeEndian.Uint64(data))
		length := binary.NativeEndian.Uint32(data[8:])
		end := entryHead + int(length&^replacesFlag)
		if finished >= from {
			entries = append(entries, entry{data[entryHead:end:end], length&replacesFlag != 0})
		}
		data = data[end:]
	}
	return entries
}
