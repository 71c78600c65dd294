package cloudwatch

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// maxEvent is the longest event that is sent, in bytes; what is longer is cut and says so.
const maxEvent = 256<<10 - 64

const truncated = "[Truncated...]"

// retentions are the days that CloudWatch Logs keeps events (API reference, PutRetentionPolicy).
var retentions = []int{1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653}

// rawFile is an entry of collect_list as it is written.
type rawFile struct {
	FilePath         string      `json:"file_path"`
	LogGroupName     string      `json:"log_group_name"`
	LogStreamName    string      `json:"log_stream_name"`
	LogGroupClass    string      `json:"log_group_class"`
	TimestampFormat  string      `json:"timestamp_format"`
	Timezone         string      `json:"timezone"`
	MultiLineStart   string      `json:"multi_line_start_pattern"`
	Encoding         string      `json:"encoding"`
	Blacklist        string      `json:"blacklist"`
	RetentionInDays  *int        `json:"retention_in_days"`
	AutoRemoval      bool        `json:"auto_removal"`
	PublishMultiLogs bool        `json:"publish_multi_logs"`
	Filters          []rawFilter `json:"filters"`
}

type rawFilter struct {
	Type       string `json:"type"`
	Expression string `json:"expression"`
}

// fileConfig is an entry of collect_list that has been checked.
type fileConfig struct {
	Path       string // may be a glob
	Group      string // with placeholders
	Stream     string // with placeholders
	Class      string
	Retention  int // days, 0 for ever
	Time       *timeFormat
	Start      *regexp.Regexp // nil: every line is an event
	Blacklist  *regexp.Regexp
	Filters    []lineFilter
	AutoRemove bool
	All        bool // all files that the glob finds, not only the newest
}

type lineFilter struct {
	include bool
	re      *regexp.Regexp
}

// id tells entries apart in the state file.
func (f *fileConfig) id() string { return f.Path + "|" + f.Group + "|" + f.Stream }

// glob reports whether the path names more than one file.
func (f *fileConfig) glob() bool { return strings.ContainsAny(f.Path, "*?[") }

// keeps reports whether the filters let an event through.
func (f *fileConfig) keeps(text []byte) bool {
	for _, l := range f.Filters {
		if l.re.Match(text) != l.include {
			return false
		}
	}
	return true
}

// check validates the entry; the error begins with the field's name.
func (r *rawFile) check(defaultStream string) (fileConfig, error) {
	f := fileConfig{Path: filepath.Clean(r.FilePath), Group: r.LogGroupName, Stream: r.LogStreamName, Class: r.LogGroupClass,
		AutoRemove: r.AutoRemoval, All: r.PublishMultiLogs}
	if !filepath.IsAbs(r.FilePath) {
		return f, fmt.Errorf("file_path: %q is no absolute path", r.FilePath)
	}
	if _, err := filepath.Match(f.Path, "x"); err != nil {
		return f, fmt.Errorf("file_path: %q: %w", r.FilePath, err)
	}
	if f.Group == "" {
		f.Group = groupOf(f.Path)
	}
	if f.Stream == "" {
		f.Stream = defaultStream
	}
	if f.Stream == "" {
		f.Stream = "{instance_id}"
	}
	for field, v := range map[string]string{"log_group_name": f.Group, "log_stream_name": f.Stream} {
		if err := checkPlaceholders(v); err != nil {
			return f, fmt.Errorf("%s: %w", field, err)
		}
	}
	if f.Class != "" && f.Class != "STANDARD" && f.Class != "INFREQUENT_ACCESS" {
		return f, fmt.Errorf("log_group_class: %q is neither STANDARD nor INFREQUENT_ACCESS", f.Class)
	}
	switch strings.ToLower(r.Encoding) {
	case "", "utf-8", "utf8", "ascii", "us-ascii":
	default:
		return f, fmt.Errorf("encoding: %q is not supported; utf-8 and ascii are", r.Encoding)
	}
	if d := r.RetentionInDays; d != nil && *d != -1 {
		if !slices.Contains(retentions, *d) {
			return f, fmt.Errorf("retention_in_days: %d is none of -1 and %v", *d, retentions)
		}
		f.Retention = *d
	}
	return f, r.checkPatterns(&f)
}

func (r *rawFile) checkPatterns(f *fileConfig) (err error) {
	switch r.Timezone {
	case "", "Local", "LOCAL", "local", "UTC":
	default:
		return fmt.Errorf("timezone: %q is neither UTC nor Local", r.Timezone)
	}
	if r.TimestampFormat != "" {
		if f.Time, err = newTimeFormat(r.TimestampFormat, r.Timezone == "UTC"); err != nil {
			return fmt.Errorf("timestamp_format: %w", err)
		}
	}
	switch {
	case strings.Contains(r.MultiLineStart, "{timestamp_format}") || strings.Contains(r.MultiLineStart, "{datetime_format}"):
		if f.Time == nil {
			return fmt.Errorf("multi_line_start_pattern: names {timestamp_format}, but there is no timestamp_format")
		}
		f.Start = f.Time.re
	case r.MultiLineStart != "":
		if f.Start, err = regexp.Compile(r.MultiLineStart); err != nil {
			return fmt.Errorf("multi_line_start_pattern: %w", err)
		}
	}
	if r.Blacklist != "" {
		if f.Blacklist, err = regexp.Compile(r.Blacklist); err != nil {
			return fmt.Errorf("blacklist: %w", err)
		}
	}
	for i, l := range r.Filters {
		if l.Type != "include" && l.Type != "exclude" {
			return fmt.Errorf("filters[%d].type: %q is neither include nor exclude", i, l.Type)
		}
		re, err := regexp.Compile(l.Expression)
		if err != nil {
			return fmt.Errorf("filters[%d].expression: %w", i, err)
		}
		f.Filters = append(f.Filters, lineFilter{include: l.Type == "include", re: re})
	}
	return nil
}

// groupOf names a log group after a file: up to the final dot, without characters that a group's name cannot have.
func groupOf(path string) string {
	if i := strings.LastIndexByte(path, '.'); i > strings.LastIndexByte(path, '/')+1 {
		path = path[:i]
	}
	var b strings.Builder
	for _, c := range path {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("._/#-", c) {
			b.WriteRune(c)
		} else {
			b.WriteByte('_')
		}
	}
	return b.String()
}
