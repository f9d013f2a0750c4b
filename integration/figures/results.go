package figures

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// Part is what is measured together.
type Part struct {
	Machine Machine  `json:"machine"`
	Command string   `json:"command"` // what measures it, also alone
	Title   string   `json:"title"`
	Figures []Figure `json:"figures"`
}

// Append writes the part as a line of JSON to the file at path; nowhere if that is
// empty.
func (p Part) Append(path string) (err error) {
	if path == "" {
		return nil
	}
	line, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("results: %w", err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("results: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("results: %w", err)
	}
	return nil
}

// maxLine is longer than a part, in bytes.
const maxLine = 1 << 20

// Read returns the parts of a file of results, in the order in which they came first;
// of those that were measured several times the last.
func Read(r io.Reader) ([]Part, error) {
	var all []Part
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var p Part
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			return nil, fmt.Errorf("results: %w", err)
		}
		if i := slices.IndexFunc(all, func(q Part) bool { return q.Title == p.Title }); i >= 0 {
			all[i] = p
		} else {
			all = append(all, p)
		}
	}
	return all, lines.Err()
}

// Markdown writes a part as a section of a page.
func (p Part) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\n## %s\n\n`%s`\n\n%s\n\n", p.Title, p.Command, p.Machine)
	fmt.Fprintf(&b, "| | | min – median – max, rounds: %d | unit | goal |\n|---|---|---|---|---|\n", rounds(p.Figures))
	for _, row := range rows(p.Figures) {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
