package trace

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxLine bounds a line of a record file. A trace with every sighting of a few
// attempts has some ten kilobytes; this leaves room for a long chain and still
// keeps a reader's memory constant on a file that is no record file.
const maxLine = 4 << 20

// ErrNotRecord is wrapped by the error for a line that is JSON but no record.
var ErrNotRecord = errors.New("not a dnstrace record")

// LineError says which line of a stream is no valid record, and why.
type LineError struct {
	Line int // from 1
	Err  error
}

// Error implements error.
func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap returns the cause.
func (e *LineError) Unwrap() error { return e.Err }

// Decode reads one record from one JSON object. It refuses duplicate fields, wrong
// types, another version and missing identity; the error names the field. It ignores unknown
// fields, so that different versions of plugin and tracer work together. The record does not
// refer to line.
func Decode(line []byte) (Record, error) {
	if len(line) == 0 || line[0] != '{' {
		return nil, fmt.Errorf("%w: expected a JSON object", ErrNotRecord)
	}
	if q := decodeQuery(line); q != nil && checkHeader(&q.Header) == nil && checkAttempts(q.Upstreams) == nil {
		return q, nil
	}
	var head struct {
		V      *int    `json:"v"`
		Record *string `json:"record"`
	}
	if err := json.Unmarshal(line, &head); err != nil {
		return nil, fieldError(err)
	}
	if head.V == nil || head.Record == nil {
		return nil, fmt.Errorf("%w: the fields v and record are missing", ErrNotRecord)
	}
	if *head.V != Version {
		return nil, fmt.Errorf("field v: expected %d, got %d: written by another version of dnstrace", Version, *head.V)
	}
	var r Record
	switch *head.Record {
	case KindQuery:
		r = new(Query)
	case KindRefresh:
		r = new(Refresh)
	case KindExchange:
		r = new(Exchange)
	case KindTrace:
		r = new(Trace)
	default:
		return nil, fmt.Errorf("field record: expected query, refresh, exchange or trace, got %q", *head.Record)
	}
	if err := json.Unmarshal(line, r); err != nil {
		return nil, fieldError(err)
	}
	if err := checkHeader(r.Head()); err != nil {
		return nil, err
	}
	if err := checkLists(r); err != nil {
		return nil, err
	}
	return r, nil
}

// checkLists checks what is in a record's lists, and that there is an end to it.
func checkLists(r Record) error {
	switch r := r.(type) {
	case *Query:
		return checkAttempts(r.Upstreams)
	case *Refresh:
		return checkAttempts(r.Upstreams)
	case *Trace:
		if err := errors.Join(checkPart("exchange", r.Exchange), checkPart("query", r.Query)); err != nil {
			return err
		}
		room := maxUpstreams
		return checkUpstreams(r.Upstreams, maxNested, &room)
	}
	return nil
}

func checkAttempts(list []Attempt) error {
	if len(list) > maxUpstreams {
		return errTooMany
	}
	return nil
}

// maxNested bounds the depth of a record's upstreams: a tracer writes fewer levels, and each
// is indented further. maxUpstreams bounds their total: each is compared with the others,
// and a server gives up after some.
const (
	maxNested    = 32
	maxUpstreams = 2048
)

var errTooMany = fmt.Errorf("field upstreams: more than %d", maxUpstreams)

// checkUpstreams requires that each upstream is an attempt or an exchange, that lists of
// exchanges hold exchanges, and that depth and number are bounded.
func checkUpstreams(list []Upstream, depth int, room *int) error {
	if depth == 0 && len(list) > 0 {
		return fmt.Errorf("field upstreams: nested more than %d times", maxNested)
	}
	if *room -= len(list); *room < 0 {
		return errTooMany
	}
	for i := range list {
		switch u := &list[i]; {
		case u.Attempt == nil && u.Exchange == nil:
			return errors.New("field upstreams: expected an attempt or an exchange, got neither")
		case slices.Contains(u.Earlier, nil):
			return errors.New("field upstreams.earlier: expected exchanges, got null")
		}
		for _, ex := range list[i].Exchanges() {
			if err := checkPart("upstreams.exchange", ex); err != nil {
				return err
			}
		}
		if err := checkPart("upstreams.query", list[i].Query); err != nil {
			return err
		}
		if err := checkUpstreams(list[i].Upstreams, depth-1, room); err != nil {
			return err
		}
	}
	return nil
}

// checkPart checks a record that is a part of another, and may be missing: it is read as one of
// its own.
func checkPart[R any, P interface {
	*R
	Record
}](field string, part P) error {
	if part == nil {
		return nil
	}
	if err := checkHeader(part.Head()); err != nil {
		return fmt.Errorf("of field %s: %w", field, err)
	}
	return nil
}

func checkHeader(h *Header) error {
	switch {
	case h.Time.IsZero():
		return errors.New("field time: missing")
	case h.TraceID.IsZero():
		return errors.New("field trace_id: missing")
	case h.Flow == Flow{}:
		return errors.New("field flow: missing")
	}
	return nil
}

// fieldError says where in the record the error is, the way people write it:
// upstreams[0].address.
func fieldError(err error) error {
	var pointer jsontext.Pointer
	var semantic *json.SemanticError
	var syntactic *jsontext.SyntacticError
	switch {
	case errors.As(err, &semantic):
		pointer = semantic.JSONPointer
		if semantic.Err != nil {
			err = semantic.Err
		} else {
			err = fmt.Errorf("a JSON %s does not fit here", kindName(semantic.JSONKind))
		}
	case errors.As(err, &syntactic):
		pointer = syntactic.JSONPointer
		err = fmt.Errorf("not valid JSON: %w", syntactic.Err)
	}
	if pointer == "" {
		return err
	}
	return fmt.Errorf("field %s: %w", fieldName(pointer), err)
}

func fieldName(p jsontext.Pointer) string {
	var b strings.Builder
	for token := range p.Tokens() {
		if token != "" && strings.Trim(token, "0123456789") == "" {
			b.WriteString("[" + token + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(token)
	}
	return b.String()
}

func kindName(k jsontext.Kind) string {
	switch k {
	case '"':
		return "string"
	case '0':
		return "number"
	case '{':
		return "object"
	case '[':
		return "list"
	case 't', 'f':
		return "boolean"
	}
	return "value"
}

// Reader reads records from a stream, one a line.
type Reader struct {
	r    *bufio.Reader
	line int
	long []byte
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 64<<10)}
}

// Read returns the next record and the line that holds it, valid until the next
// call. It returns io.EOF at the end and a *[LineError] for a line that is no
// record, after which reading goes on with the next line; empty lines are
// passed over.
func (r *Reader) Read() (Record, []byte, error) {
	for {
		line, err := r.next()
		if err != nil {
			return nil, nil, err
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		rec, err := Decode(line)
		if err != nil {
			return nil, nil, &LineError{Line: r.line, Err: err}
		}
		return rec, line, nil
	}
}

// next returns the next line, in constant memory whatever its length.
func (r *Reader) next() ([]byte, error) {
	r.long = r.long[:0]
	size := 0
	for {
		part, err := r.r.ReadSlice('\n')
		size += len(part)
		if size <= maxLine {
			r.long = append(r.long, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && size > 0:
		case err != nil:
			return nil, err
		}
		r.line++
		if size > maxLine {
			return nil, &LineError{Line: r.line, Err: fmt.Errorf("longer than %d bytes: %w", maxLine, ErrNotRecord)}
		}
		return r.long, nil
	}
}
