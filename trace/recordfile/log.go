package recordfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// rotationDelay is the least time between two checks whether a file was renamed or removed.
const rotationDelay = time.Second

// Lines writes whole lines to a stream. A line that the stream took in part, as a full disk
// does, stays a line of its own: the next write begins with a newline. Not safe for concurrent
// use.
type Lines struct {
	torn bool // the last line is not complete
}

// WriteTo writes lines, each with its newline. After an error, whole says how many of them are
// in the stream, but for the newline of the last one, which the next write begins with.
func (l *Lines) WriteTo(w io.Writer, lines []byte) (whole int, err error) {
	if l.torn {
		if _, err := w.Write([]byte{'\n'}); err != nil {
			return 0, err
		}
		l.torn = false
	}
	n, err := w.Write(lines)
	if err == nil {
		return bytes.Count(lines, []byte{'\n'}), nil
	}
	if l.torn = n > 0 && lines[n-1] != '\n'; l.torn && lines[n] == '\n' {
		n++
	}
	return bytes.Count(lines[:n], []byte{'\n'}), err
}

// Log is a file that records are appended to, and that log rotation may rename or remove. Not
// safe for concurrent use.
type Log struct {
	lines   Lines
	path    string
	warn    func(error)
	file    *os.File
	info    os.FileInfo
	checked time.Time // when path last was
	stuck   bool      // since then, no new file could be opened
}

// OpenLog opens a file as [Open] does. warn is called where something fails that stops nobody:
// when the file was renamed or removed and no new one can be opened, so that records go on to
// the old one. The caller must close the log.
func OpenLog(path string, warn func(error)) (*Log, error) {
	l := &Log{path: path, warn: warn, checked: time.Now()}
	return l, l.open()
}

func (l *Log) open() error {
	f, err := Open(l.path)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.info, l.lines.torn = f, info, endsTorn(f, info.Size())
	return nil
}

// endsTorn reports whether a file ends in the middle of a line: whoever wrote to it was killed,
// or its disk was full.
func endsTorn(f *os.File, size int64) bool {
	var last [1]byte
	_, err := f.ReadAt(last[:], size-1)
	return err == nil && last[0] != '\n'
}

// Append appends lines as [Lines.WriteTo] does, to the file that the path names; within a
// second after a rotation, to the one before. A regular file does not block for long, and knows
// no deadline.
func (l *Log) Append(lines []byte) (whole int, err error) {
	l.follow()
	return l.lines.WriteTo(l.file, lines)
}

// follow opens the file again when log rotation has renamed or removed it.
func (l *Log) follow() {
	now := time.Now()
	if now.Sub(l.checked) < rotationDelay {
		return
	}
	l.checked = now
	if info, err := os.Lstat(l.path); err == nil && os.SameFile(info, l.info) {
		return
	}
	old := l.file
	if err := l.open(); err != nil {
		if !l.stuck {
			l.warn(fmt.Errorf("%s was renamed or removed, but no new file can be opened; records go on to the old one: %w", l.path, err))
		}
		l.stuck = true
		return
	}
	l.stuck = false
	if err := old.Close(); err != nil {
		l.warn(fmt.Errorf("%s: closing what was renamed: %w", l.path, err))
	}
}

// Close closes the file.
func (l *Log) Close() error { return l.file.Close() }
