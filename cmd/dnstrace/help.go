package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/dnstrace/dnstrace/tracer/render"
)

// fitHelp makes the help of a command and those below it fit a terminal of 80
// columns.
func fitHelp(root *cobra.Command) {
	cobra.AddTemplateFunc("paragraphs", func(s string) string { return paragraphs(s, render.DefaultWidth) })
	cobra.AddTemplateFunc("helpWidth", func() int { return render.DefaultWidth })
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), "Flags.FlagUsages |", "Flags.FlagUsagesWrapped helpWidth |"))
	root.SetHelpTemplate(strings.ReplaceAll(root.HelpTemplate(), "{{. | ", "{{. | paragraphs | "))
}

// paragraphs fills lines up to a width; those that are indented stay as they are.
func paragraphs(text string, width int) string {
	var out strings.Builder
	column := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || line[0] == ' ' {
			if column > 0 {
				out.WriteByte('\n')
			}
			out.WriteString(line + "\n")
			column = 0
			continue
		}
		for _, word := range strings.Fields(line) {
			switch {
			case column == 0:
			case column+1+len(word) > width:
				out.WriteByte('\n')
				column = 0
			default:
				out.WriteByte(' ')
				column++
			}
			out.WriteString(word)
			column += len(word)
		}
	}
	return out.String()
}
