package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// What is between these lines is a session: commands, each with what it prints.
const (
	sessionStart = "```console"
	sessionEnd   = "```"
	prompt       = "$ "
)

// session is one such block of a page.
type session struct {
	commands []string
	outputs  []string // of each
}

// sessions reads a page.
func sessions(page string) ([]session, error) {
	var all []session
	inside := false
	for n, line := range strings.Split(page, "\n") {
		switch last := len(all) - 1; {
		case !inside && line == sessionStart:
			all, inside = append(all, session{}), true
		case !inside:
		case line == sessionEnd:
			inside = false
		case strings.HasPrefix(line, prompt):
			all[last].commands = append(all[last].commands, strings.TrimPrefix(line, prompt))
			all[last].outputs = append(all[last].outputs, "")
		case len(all[last].commands) == 0:
			return nil, fmt.Errorf("line %d: a session begins with a command, after %q", n+1, prompt)
		default:
			all[last].outputs[len(all[last].outputs)-1] += line + "\n"
		}
	}
	if inside {
		return nil, fmt.Errorf("the last session does not end")
	}
	return all, nil
}

// fill runs every command of a page, in order, and returns the page with what
// they print.
func fill(page string, run func(command string) (string, error)) (string, error) {
	if _, err := sessions(page); err != nil {
		return "", err
	}
	var out []string
	inside := false
	for line := range strings.SplitSeq(page, "\n") {
		switch {
		case line == sessionStart:
			inside = true
		case inside && line == sessionEnd:
			inside = false
		case inside && strings.HasPrefix(line, prompt):
			text, err := run(strings.TrimPrefix(line, prompt))
			if err != nil {
				return "", fmt.Errorf("%s: %w", line, err)
			}
			out = append(out, line)
			if text = strings.TrimRight(text, "\n"); text != "" {
				out = append(out, strings.Split(text, "\n")...)
			}
			continue
		case inside:
			continue // what it printed before
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n"), nil
}

var (
	// heading is a word of a table's head, a result or a reason of the kernel's.
	heading = regexp.MustCompile(`\b[A-Z][A-Z_-]{2,}\b`)
	// code is the code of a finding.
	code = regexp.MustCompile(`\b[a-z]+(-[a-z]+)+\b`)
)

// passing are headings that are there in some runs: the kernel limits the rate of
// its ICMP errors.
var passing = []string{"ICMP"}

// essence is what of a command's output is the same in every run: the headings,
// the results and the findings, but not the times, the ids and the order.
func essence(output string, codes []string) string {
	var words []string
	words = append(words, heading.FindAllString(output, -1)...)
	for _, word := range code.FindAllString(output, -1) {
		if slices.Contains(codes, word) {
			words = append(words, word)
		}
	}
	words = slices.DeleteFunc(words, func(w string) bool { return slices.Contains(passing, w) })
	slices.Sort(words)
	return strings.Join(slices.Compact(words), " ")
}
