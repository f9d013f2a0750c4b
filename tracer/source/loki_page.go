package source

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/dnstrace/dnstrace/tracer/oneline"
)

// maxAnswer bounds an answer after it was decompressed: a page of 1,000 records of 32 kB,
// of which most take 3. The decoder may hold it a few times over.
const maxAnswer = 32 << 20

// streams is the type of an answer with log lines.
const streams = "streams"

// pageReader reads Loki's answer to a log query, and keeps of it only the lines:
//
//	{"data": {"resultType": "streams", "result": [{"values": [["TIME", "LINE", …], …]}, …]}}
type pageReader struct {
	in    *jsontext.Decoder
	limit int    // lines that were asked for
	kind  string // resultType
	page  []lokiEntry
}

// parsePage reads an answer of at most limit lines, and puts those of all its streams
// in order.
func parsePage(r io.Reader, limit int) ([]lokiEntry, error) {
	// A server that repeats a name is not worth the memory to notice.
	p := pageReader{in: jsontext.NewDecoder(r, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)), limit: limit}
	err := p.object(func(name string) error {
		if name != "data" {
			return p.in.SkipValue()
		}
		return p.object(p.data)
	})
	if err == nil {
		err = p.checkKind()
	}
	var tooLong *http.MaxBytesError
	var notJSON *jsontext.SyntacticError
	switch {
	case errors.As(err, &tooLong):
		return nil, fmt.Errorf("--loki: the answer has more than %d MB; a shorter --since or --window asks for less", tooLong.Limit>>20)
	case errors.As(err, &notJSON), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, errOtherShape):
		return nil, &passing{fmt.Errorf("--loki: the answer is not Loki's: %w; is something else at this address?", err)}
	case err != nil:
		return nil, err
	}
	slices.SortStableFunc(p.page, func(a, b lokiEntry) int { return cmp.Compare(a.at.UnixNano(), b.at.UnixNano()) })
	return p.page, nil
}

// errOtherShape is of JSON that is not what Loki writes.
var errOtherShape = errors.New("expected an object with data")

// data reads a member of the object of that name.
func (p *pageReader) data(name string) error {
	switch name {
	case "resultType":
		var err error
		if p.kind, err = p.text(); err != nil {
			return err
		}
		return p.checkKind()
	case "result":
		return p.array(func() error { return p.object(p.stream) })
	}
	return p.in.SkipValue()
}

// checkKind fails unless the answer has log lines.
func (p *pageReader) checkKind() error {
	if p.kind == streams {
		return nil
	}
	return fmt.Errorf("--loki-query: it gives a %s, expected log lines: a query such as %s", oneline.Shorten(p.kind, 40), DefaultQuery)
}

func (p *pageReader) stream(name string) error {
	if name != "values" {
		return p.in.SkipValue()
	}
	return p.array(p.entry)
}

// entry reads a line: its time, its text, and maybe metadata.
func (p *pageReader) entry() error {
	if len(p.page) == p.limit {
		return fmt.Errorf("--loki: the answer has more than the %d lines that were asked for; is something else at this address?", p.limit)
	}
	var parts [2]string
	n := 0
	err := p.array(func() error {
		if n == len(parts) {
			return p.in.SkipValue()
		}
		var err error
		parts[n], err = p.text()
		n++
		return err
	})
	switch {
	case err != nil:
		return err
	case n < len(parts):
		return errors.New("--loki: a line without time or text; this version of Loki is not understood")
	}
	ns, err := strconv.ParseInt(parts[0], 10, 64)
	if err != nil {
		return fmt.Errorf("--loki: reading the time of a line: expected nanoseconds, got %s", oneline.Shorten(parts[0], 40))
	}
	p.page = append(p.page, lokiEntry{at: time.Unix(0, ns), line: []byte(parts[1])})
	return nil
}

// object calls member with each name of an object; it must read the value.
func (p *pageReader) object(member func(name string) error) error {
	return p.each('{', '}', func() error {
		name, err := p.text()
		if err != nil {
			return err
		}
		return member(name)
	})
}

// array calls element before each element of an array; it must read it.
func (p *pageReader) array(element func() error) error { return p.each('[', ']', element) }

func (p *pageReader) each(begin, end jsontext.Kind, one func() error) error {
	switch t, err := p.in.ReadToken(); {
	case err != nil:
		return err
	case t.Kind() == 'n' && begin == '[':
		return nil // null: no streams
	case t.Kind() != begin:
		return errOtherShape
	}
	for p.in.PeekKind() != end {
		if err := one(); err != nil {
			return err
		}
	}
	_, err := p.in.ReadToken()
	return err
}

func (p *pageReader) text() (string, error) {
	t, err := p.in.ReadToken()
	if err == nil && t.Kind() != '"' {
		err = errOtherShape
	}
	if err != nil {
		return "", err
	}
	return t.String(), nil
}
