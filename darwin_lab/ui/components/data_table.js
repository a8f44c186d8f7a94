// A table that stays readable: sorts on a click on its head, filters, marks the chosen row, fires `select` with the row's
// id, exports CSV. `props.value` = {columns: [{label, kind, digits, title}], rows: [{id, cells, tone}], chosen, empty}.
// Columns named in `props.facets` get a menu of their values; of a long table MOST rows are drawn until more are asked for.
const root = element.querySelector('.dl-data'), scroll = root.querySelector('.dl-scroll'), filter = root.querySelector('input'), count = root.querySelector('.dl-count');
const MOST = 300, menus = {};
let order = null, text = '', all = false;
function make(tag, className, words) { const e = document.createElement(tag); if (className) e.className = className; if (words != null) e.textContent = words; return e; }
function shown(value, column) {
  if (value == null) return '–';
  if (typeof value !== 'number') return String(value);
  if (column.kind === 'share') return (100 * value).toFixed(column.digits ?? 1) + ' %';
  if (column.digits != null && Math.abs(value) >= 1000) return value.toLocaleString('en', {minimumFractionDigits: column.digits, maximumFractionDigits: column.digits});
  return column.digits == null ? value.toLocaleString('en') : (column.kind === 'signed' && value > 0 ? '+' : '') + value.toFixed(column.digits);
}
function cell_of(value, column, range) {
  const cell = make('td');
  if (typeof value === 'number' || column.kind === 'number') cell.className = 'num';
  if (column.kind === 'code' || column.kind === 'long') cell.className = column.kind;
  if (column.kind === 'mark' && value) {
    const mark = make('span', 'dl-mark ' + value.tone, value.words);
    cell.append(mark);
    return cell;
  }
  if (column.kind === 'bar' && typeof value === 'number') {
    const bar = make('span', 'dl-bar');
    bar.style.setProperty('--w', range[1] > range[0] ? 4 + 96 * (value - range[0]) / (range[1] - range[0]) + '%' : '100%');
    cell.classList.add('bar');
    cell.append(bar);
  }
  if (column.kind === 'quote') {                                             // two lines of it; a click shows it whole
    cell.append(make('div', 'dl-quote', shown(value, column)));
    cell.className = 'long';
    return cell;
  }
  cell.append(shown(value, column));
  return cell;
}
const named = cell => cell == null || cell === '' ? '–' : String(cell?.words ?? cell);
function offer(columns, rows) {
  for (const [label, menu] of Object.entries(menus)) {
    const at = columns.findIndex(c => c.label === label), now = menu.value;
    const names = at < 0 ? [] : [...new Set(rows.map(row => named(row.cells[at])))].sort((a, b) => a.localeCompare(b, 'en', {numeric: true}));
    const key = names.join('\n');
    if (menu.dataset.key === key) continue;
    menu.dataset.key = key;
    menu.replaceChildren(...['', ...names].map(name => { const o = make('option', '', name || `any ${label}`); o.value = name; return o; }));
    menu.value = names.includes(now) ? now : '';
    menu.disabled = names.length < 2;
  }
}
function paint() {
  const value = props.value || {}, columns = value.columns || [];
  let rows = value.rows || [];
  root.dataset.rows = rows.length;
  offer(columns, rows);
  if (!rows.length) { scroll.replaceChildren(make('p', 'dl-nothing', value.empty || 'Nothing here yet.')); count.textContent = ''; return; }
  for (const [label, menu] of Object.entries(menus)) {
    const at = columns.findIndex(c => c.label === label);
    if (at >= 0 && menu.value) rows = rows.filter(row => named(row.cells[at]) === menu.value);
  }
  const wanted = filter ? filter.value.trim().toLowerCase() : '';
  if (wanted) rows = rows.filter(row => row.cells.some(c => String(c?.words ?? c ?? '').toLowerCase().includes(wanted)));
  if (order) {
    const [at, sign] = order, key = row => row.cells[at]?.words ?? row.cells[at];
    rows = [...rows].sort((a, b) => { const x = key(a), y = key(b); if (x == null) return 1; if (y == null) return -1; return sign * (typeof x === 'number' && typeof y === 'number' ? x - y : String(x).localeCompare(String(y), 'en', {numeric: true})); });
  }
  const ranges = columns.map((c, i) => { const all = (value.rows || []).map(r => r.cells[i]).filter(v => typeof v === 'number'); return [Math.min(...all), Math.max(...all)]; });
  const grid = make('table'), head = grid.createTHead().insertRow(), lines = grid.createTBody();
  columns.forEach((column, i) => {
    const th = make('th', ['number', 'bar', 'share', 'signed'].includes(column.kind) ? 'num' : ''), press = make('button', '', column.label);
    press.type = 'button';
    press.title = column.title || `Sort by ${column.label}`;
    press.addEventListener('click', () => { order = order && order[0] === i ? (order[1] === -1 ? [i, 1] : null) : [i, -1]; paint(); });
    if (order && order[0] === i) th.setAttribute('aria-sort', order[1] === 1 ? 'ascending' : 'descending');
    th.scope = 'col';
    th.append(press);
    head.append(th);
  });
  for (const row of all ? rows : rows.slice(0, MOST)) {
    const line = lines.insertRow();
    line.dataset.id = row.id;
    if (row.tone) line.classList.add(row.tone);
    if (props.pick) { line.tabIndex = 0; line.setAttribute('aria-selected', String(row.id === value.chosen)); }
    row.cells.forEach((c, i) => line.append(cell_of(c, columns[i], ranges[i])));
  }
  const at = [scroll.scrollTop, scroll.scrollLeft];
  scroll.replaceChildren(grid);
  if (!rows.length) scroll.append(make('p', 'dl-nothing', 'No row fits; clear a filter.'));
  if (!all && rows.length > MOST) {
    const more = make('button', 'dl-more', `Show the other ${(rows.length - MOST).toLocaleString('en')} rows`);
    more.type = 'button';
    more.addEventListener('click', event => { event.stopPropagation(); all = true; paint(); });
    scroll.append(more);
  }
  [scroll.scrollTop, scroll.scrollLeft] = at;
  count.textContent = rows.length === value.rows.length ? `${rows.length} rows` : `${rows.length} of ${value.rows.length} rows`;
}
function chosen(event) {
  event.target.closest('.dl-quote')?.classList.toggle('open');
  const line = event.target.closest('tbody tr');
  if (line && props.pick) trigger('select', {id: line.dataset.id});
}
scroll.addEventListener('click', chosen);
scroll.addEventListener('keydown', event => { if (event.key === 'Enter' || event.key === ' ') { if (event.target.closest('tbody tr')) { event.preventDefault(); chosen(event); } } });
filter?.addEventListener('input', paint);
for (const menu of root.querySelectorAll('select[data-facet]')) { menus[menu.dataset.facet] = menu; menu.addEventListener('change', paint); }
root.querySelector('.dl-csv')?.addEventListener('click', () => {
  const quoted = v => { const s = String(v?.words ?? v ?? ''); return /[",\n]/.test(s) ? '"' + s.replace(/"/g, '""') + '"' : s; };
  const words = [props.value.columns.map(c => quoted(c.label)), ...props.value.rows.map(r => r.cells.map(quoted))].map(r => r.join(',')).join('\n');
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([words], {type: 'text/csv'}));
  link.download = props.filename + '.csv';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});
function feed() { const now = JSON.stringify(props.value); if (now !== text) { text = now; all = false; paint(); } }
watch('value', feed);
feed();
