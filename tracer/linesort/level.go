package linesort

import (
	"bufio"
	"encoding/binary"
	"io"
	"os"
	"slices"
)

// So many runs of a level are merged into one of the next: with runs of 4 MiB,
// two levels hold 16 GiB. Each run that is read has a buffer.
const (
	maxRuns    = 64
	readBuffer = 16 << 10
)

// level is a file of runs that are about equally long.
type level struct {
	file *os.File
	size int64
	runs []run
}

// run is a part of a file that is sorted.
type run struct{ from, size int64 }

// headSize is the length of what stands before a line in a file: its key, its
// place among all lines, its length.
const headSize = 8 + 8 + 8 + 4

// write appends a run.
func (l *level) write(from sources) error {
	if l.file == nil {
		f, err := os.CreateTemp("", "dnstrace-sort-")
		if err != nil {
			return err
		}
		// Without a name it goes with the process, however that ends.
		if err := os.Remove(f.Name()); err != nil {
			_ = f.Close()
			return err
		}
		l.file = f
	}
	out := bufio.NewWriterSize(io.NewOffsetWriter(l.file, l.size), 64<<10)
	var head [headSize]byte
	size := int64(0)
	err := from.merge(func(i *item, line []byte) error {
		binary.LittleEndian.PutUint64(head[:], uint64(i.key.Major))
		binary.LittleEndian.PutUint64(head[8:], uint64(i.key.Minor))
		binary.LittleEndian.PutUint64(head[16:], i.seq)
		binary.LittleEndian.PutUint32(head[24:], uint32(len(line)))
		size += int64(headSize + len(line))
		if _, err := out.Write(head[:]); err != nil {
			return err
		}
		_, err := out.Write(line)
		return err
	})
	if err != nil {
		return err
	}
	l.runs = append(l.runs, run{from: l.size, size: size})
	l.size += size
	return out.Flush()
}

// empty forgets the runs, and gives the disk their room back.
func (l *level) empty() error {
	l.runs, l.size = nil, 0
	return l.file.Truncate(0)
}

// sources appends the runs to a list.
func (l *level) sources(list sources) sources {
	for _, r := range l.runs {
		list = append(list, &fileRun{in: bufio.NewReaderSize(io.NewSectionReader(l.file, r.from, r.size), readBuffer)})
	}
	return list
}

// fileRun is a run that is read from its file.
type fileRun struct {
	in   *bufio.Reader
	at   item
	line []byte
}

func (f *fileRun) next() (bool, error) {
	var head [headSize]byte
	if _, err := io.ReadFull(f.in, head[:]); err == io.EOF {
		return false, nil
	} else if err != nil {
		return false, err
	}
	f.at.key.Major = int64(binary.LittleEndian.Uint64(head[:]))
	f.at.key.Minor = int64(binary.LittleEndian.Uint64(head[8:]))
	f.at.seq = binary.LittleEndian.Uint64(head[16:])
	size := int(binary.LittleEndian.Uint32(head[24:]))
	f.line = slices.Grow(f.line[:0], size)[:size]
	_, err := io.ReadFull(f.in, f.line)
	return true, err
}

func (f *fileRun) head() (*item, []byte) { return &f.at, f.line }
