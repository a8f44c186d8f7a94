// Enter in an open drop-down picks as the mouse does: gradio tells `select` of a pick by the mouse alone, and `input`
// twice for one pick, and once more when a menu is only left.
document.addEventListener('keydown', event => {
  const option = event.key === 'Enter' && document.getElementById(event.target.getAttribute?.('aria-activedescendant') ?? '');
  if (!option) return;
  event.stopPropagation();
  event.preventDefault();
  option.dispatchEvent(new MouseEvent('mousedown', {bubbles: true, cancelable: true}));
}, true);
